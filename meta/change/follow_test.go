package change_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

// TestFollow runs the dialogues in testdata/follow with a Follower. Verbs: range (a descriptor; down=(…) nodes), direct (decider, seq,
// gen, voters=(…), lead), withdraw (decider, seq: says whether all of it is over), step (the next step is taken), run (steps until there is none), late (the next step is
// derived and not taken), becomes (the range is another, by somebody else's doing), wait (for). Each says whether one is followed.
func TestFollow(t *testing.T) {
	datadriven.Walk(t, "testdata/follow", func(t *testing.T, path string) {
		s := &following{}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			return s.verb(t, c) + s.says()
		})
	})
}

type following struct {
	w   *world
	f   change.Follower
	now base.Instant
}

func (s *following) verb(t *testing.T, c *datadriven.TestData) string {
	switch c.Cmd {
	case "range", "becomes":
		d, err := desctest.Parse(c.Input)
		if err != nil {
			c.Fatalf(t, "%v", err)
		}
		if c.Cmd == "range" {
			*s = following{w: newWorld(d, nodeArgs(c, "down")...)}
		}
		s.w.d = d
		s.w.elect()
	case "direct", "withdraw":
		m := &rangepb.Directive{TimeoutMicros: 5_000_000}
		if c.Cmd == "withdraw" {
			m.Withdraw, m.TimeoutMicros = true, 0
		}
		for key, to := range map[string]*uint64{"decider": &m.Decider, "seq": &m.Seq, "gen": &m.ExpectedGeneration, "lead": &m.Leader} {
			c.MaybeScanArgs(t, key, to)
		}
		for _, n := range nodeArgs(c, "voters") {
			m.Voters = append(m.Voters, uint64(n))
		}
		if refused := s.f.Direct(m, s.w.d, s.now); refused != "" {
			return "refused: " + refused + "\n"
		}
		if m.Withdraw {
			a := s.f.Answer(m, s.w.d, "", s.now)
			return fmt.Sprintf("withdrawn=%v %s\n", a.Withdrawn, a.Waiting)
		}
	case "late":
		return describe(s.f.Next(s.w.d, s.w.observe(), s.now))
	case "step":
		step, done := s.f.Next(s.w.d, s.w.observe(), s.now)
		s.w.do(step)
		return describe(step, done)
	case "run":
		var b strings.Builder
		for range maxSteps {
			step, done := s.f.Next(s.w.d, s.w.observe(), s.now)
			b.WriteString(describe(step, done))
			if done || !s.w.do(step) {
				break
			}
		}
		return b.String()
	case "wait":
		var d string
		c.ScanArgs(t, "for", &d)
		for _, arg := range strings.Fields(d) {
			if d, err := time.ParseDuration(arg); err == nil {
				s.now = s.now.Add(d)
			}
		}
	default:
		c.Fatalf(t, "there is no verb %s", c.Cmd)
	}
	return ""
}

func (s *following) says() string {
	if !s.f.Follows(s.w.d, s.now) {
		return "follows nobody\n"
	}
	a := s.f.Answer(&rangepb.Directive{}, s.w.d, "", s.now)
	return fmt.Sprintf("follows: done=%v doing=%q waiting=%q\n", a.Done, a.Doing, a.Waiting)
}

// TestFollowsWhatWasDecidedOn: whatever comes, in whatever order, late or doubled: a step is taken only for a directive whose
// generation the range had when it was taken in, and nothing but such steps has changed the range since; and no later than its
// time-out after it was last heard, nor after it was withdrawn, or something that was decided later. Otherwise the leader leaves joint configurations, and does nothing else.
func TestFollowsWhatWasDecidedOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(desctest.Reachable(t, nodes))
		if w.leader == 0 {
			t.Skip("nobody leads")
		}
		var (
			f     change.Follower
			now   base.Instant
			sent  []*rangepb.Directive
			from  *rangepb.Directive // whose goal the steps serve
			clean uint64             // the generation up to which nothing else has changed the range
			until base.Instant
			gone  *rangepb.Directive // that was withdrawn last
			over  base.Instant       // until when nothing of before can come
		)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0: // a decider decides on what it knows, which may be old
				m := &rangepb.Directive{Decider: rapid.Uint64Range(1, 2).Draw(t, "decider"), Seq: uint64(len(sent) + 1), TimeoutMicros: 5_000_000,
					ExpectedGeneration: w.d.Generation - rapid.Uint64Range(0, min(2, w.d.Generation)).Draw(t, "old")}
				m.Voters = []uint64{1, 2, rapid.Uint64Range(3, nodes).Draw(t, "to")}
				sent = append(sent, m)
			case 1: // one arrives, for the first time or again
				if len(sent) == 0 {
					continue
				}
				m := rapid.SampledFrom(sent).Draw(t, "arrives")
				if f.Direct(m, w.d, now) != "" {
					continue
				}
				if gone != nil && gone.Decider == m.Decider && gone.Seq >= m.Seq && now < over {
					t.Fatalf("%v is followed, and %v was withdrawn", m, gone)
				}
				if from != m || clean != w.d.Generation {
					if m.ExpectedGeneration != w.d.Generation {
						t.Fatalf("decided on at %d, followed at %d: %v", m.ExpectedGeneration, w.d.Generation, m)
					}
				}
				from, clean, until = m, w.d.Generation, now.Add(5*time.Second)
			case 2: // somebody else changes the range: a split, a merge
				w.d = proto.CloneOf(w.d)
				w.d.Generation += rapid.Uint64Range(1, 2).Draw(t, "by")
			case 3:
				now = now.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, "seconds")) * time.Second)
			case 4:
				step, _ := f.Next(w.d, w.observe(), now)
				if step.Propose == nil && step.Transfer == 0 {
					continue
				}
				directed := from != nil && clean == w.d.Generation && now < until
				if !directed && !desc.Joint(w.d) {
					t.Fatalf("%s at %s and generation %d: %s; the last directive was %v, until %d", describe(step, false), desc.Format(w.d), w.d.Generation, describe(step, false), from, until)
				}
				w.do(step)
				if directed {
					clean = w.d.Generation
				}
			case 5: // one is withdrawn, for the first time or again
				if len(sent) == 0 {
					continue
				}
				m := proto.CloneOf(rapid.SampledFrom(sent).Draw(t, "withdrawn"))
				m.Withdraw, m.TimeoutMicros = true, 0
				refused := f.Direct(m, w.d, now)
				if a := f.Answer(m, w.d, refused, now); refused != "" || a.Withdrawn == (desc.Joint(w.d) && !f.Follows(w.d, now)) {
					t.Fatalf("%v at %s is answered by %v", m, desc.Format(w.d), a)
				}
				if from != nil && from.Decider == m.Decider && from.Seq <= m.Seq {
					from = nil
				}
				if gone == nil || gone.Decider != m.Decider || gone.Seq <= m.Seq || now >= over {
					gone, over = m, now.Add(5*time.Second)
				}
			}
		}
	})
}
