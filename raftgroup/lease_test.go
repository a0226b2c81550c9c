package raftgroup

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup/support"
)

// leaseWorld is a world whose nodes support each other as the test says.
type leaseWorld struct {
	*world
	epoch map[[2]base.NodeID]uint64 // of the support of the first for the second
	live  map[[2]base.NodeID]bool
	mute  map[base.NodeID]bool // its disk is stuck
}

// supports is what one node has of the others.
type supports struct {
	w  *leaseWorld
	of base.NodeID
}

func (s supports) Support(from base.NodeID) (support.Token, base.Instant) {
	k := [2]base.NodeID{from, s.of}
	if s.w.epoch[k] == 0 {
		return support.Token{}, 0
	}
	token := support.Token{Incarnation: s.w.nodes[from].incarnation, Epoch: s.w.epoch[k]}
	if !s.w.live[k] {
		return token, s.w.now
	}
	return token, s.w.now.Add(200 * time.Millisecond)
}

func (s supports) Asks() bool { return !s.w.mute[s.of] }

const leaseRange = base.RangeID(7)

// newLeaseWorld is three nodes that all support each other, with one range that has a leader.
func newLeaseWorld(t *testing.T, set func(*Config)) *leaseWorld {
	t.Helper()
	w := &leaseWorld{world: newWorld(11), epoch: map[[2]base.NodeID]uint64{}, live: map[[2]base.NodeID]bool{}, mute: map[base.NodeID]bool{}}
	w.cut = map[[2]base.NodeID]bool{}
	w.config = func(c *Config) {
		c.Supports, c.SupportDuration = supports{w, c.Node}, 300*time.Millisecond
		if set != nil {
			set(c)
		}
	}
	for id := range base.NodeID(3) {
		w.addNode(id + 1)
	}
	w.place(descriptor(leaseRange, 1, 2, 3))
	for _, n := range w.sorted() {
		w.start(n)
	}
	for _, a := range w.sorted() {
		for _, b := range w.sorted() {
			if a != b {
				w.support(a.id, b.id)
			}
		}
	}
	w.run(2500 * time.Millisecond)
	if l := w.leader(leaseRange); l == nil || !w.leased(l) {
		t.Fatalf("no leader with a lease:\n%s", w.trace.String())
	}
	return w
}

// support has one node support another from now on, under a new token.
func (w *leaseWorld) support(from, of base.NodeID) {
	k := [2]base.NodeID{from, of}
	w.epoch[k]++
	w.live[k] = true
	token := support.Token{Incarnation: w.nodes[from].incarnation, Epoch: w.epoch[k]}
	w.nodes[from].ev.Promised = append(w.nodes[from].ev.Promised, Promised{Node: of, Incarnation: w.nodes[of].incarnation, Token: token, Live: true})
	w.nodes[of].ev.Supported = append(w.nodes[of].ev.Supported, from)
}

// withdraw ends it: the requester's time is over a little before.
func (w *leaseWorld) withdraw(from, of base.NodeID) {
	k := [2]base.NodeID{from, of}
	w.live[k] = false
	token := support.Token{Incarnation: w.nodes[from].incarnation, Epoch: w.epoch[k]}
	w.nodes[of].ev.Lost = append(w.nodes[of].ev.Lost, from)
	w.nodes[from].ev.Promised = append(w.nodes[from].ev.Promised, Promised{Node: of, Token: token})
}

// leased says whether readers at a node see a valid lease.
func (w *leaseWorld) leased(n *testNode) bool {
	g := n.gates[leaseRange]
	return g != nil && !n.stopped && g.Until(supports{w, n.id}) > w.now
}

// others are the nodes but one.
func (w *leaseWorld) others(not *testNode) (out []*testNode) {
	for _, n := range w.sorted() {
		if n != not {
			out = append(out, n)
		}
	}
	return out
}

func (w *leaseWorld) mustLead(t *testing.T, n *testNode) {
	t.Helper()
	if l := w.leader(leaseRange); l != n || !w.leased(n) {
		t.Fatalf("n%d does not lead under a lease:\n%s", n.id, w.trace.String())
	}
}

// While a node supports the leader's, its replica neither votes nor campaigns, and whoever asks learns nothing.
func TestRuleFortifiedFollowersElectNobody(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	a, b := w.others(l)[0], w.others(l)[1]
	w.withdraw(a.id, l.id) // a alone is free
	w.cut[[2]base.NodeID{l.id, a.id}] = true
	w.trace.Reset()
	w.run(5 * time.Second)
	if got := w.trace.String(); !strings.Contains(got, "MsgPreVote") || !strings.Contains(got, "do you lead") {
		t.Errorf("n%d did not campaign, or n%d did not ask the leader:\n%s", a.id, b.id, got)
	}
	w.mustLead(t, l)
}

// A quorum that withdraws its support elects another, at once and not after an election's time-out; the old leader has
// stepped down by then.
func TestRuleTheEndOfSupportElects(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	for _, n := range w.others(l) {
		w.cut[[2]base.NodeID{l.id, n.id}], w.cut[[2]base.NodeID{n.id, l.id}] = true, true
		w.withdraw(n.id, l.id)
	}
	w.run(150 * time.Millisecond)
	if now := w.leader(leaseRange); now == l || now == nil || !w.leased(now) || w.leased(l) {
		t.Errorf("leader %v:\n%s", now, w.trace.String())
	}
}

// A leader that no quorum supports steps down and says so; its followers are free without waiting for anything.
func TestRuleALeaderWithoutSupportReleases(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	w.trace.Reset()
	for _, n := range w.others(l) { // its disk is stuck, say: it asks no more, and the others' promises last a while yet
		w.live[[2]base.NodeID{n.id, l.id}] = false
		l.ev.Lost = append(l.ev.Lost, n.id)
	}
	w.run(150 * time.Millisecond)
	if now := w.leader(leaseRange); now == l || now == nil || !strings.Contains(w.trace.String(), "released at term") {
		t.Errorf("leader %v:\n%s", now, w.trace.String())
	}
}

// The word that a leader leads no more may be lost: a follower that holds a vote back asks.
func TestRuleALostReleaseIsAskedFor(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	a, b := w.others(l)[0], w.others(l)[1]
	// The leader starts again, unheard; its node's support goes on, as if its new process had not been heard of.
	w.crash(l)
	w.start(l)
	w.run(50 * time.Millisecond)
	w.withdraw(a.id, l.id)
	w.trace.Reset()
	w.run(2 * time.Second)
	got := w.trace.String()
	if !strings.Contains(got, "do you lead") || !strings.Contains(got, "released") || w.leader(leaseRange) == nil {
		t.Errorf("n%d held its vote back for ever:\n%s", b.id, got)
	}
}

// A leader that hands its leadership over reads under no lease from then on, and its followers vote against their promise.
func TestRuleATransferGivesTheLeaseUp(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	to := w.others(l)[0]
	l.ev.Admin = append(l.ev.Admin, Admin{Range: leaseRange, Transfer: base.ReplicaID(to.id)})
	w.step(l)
	if w.leased(l) {
		t.Fatal("it asked another to campaign and reads on")
	}
	w.run(time.Second)
	w.mustLead(t, to)
}

// A transfer that fails leaves a leader that may never read under a lease again at its term: another term begins.
func TestRuleAFailedTransferEndsTheTerm(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	term := l.lastChange[leaseRange].Term
	to := w.others(l)[0]
	w.cut[[2]base.NodeID{l.id, to.id}] = true
	l.ev.Admin = append(l.ev.Admin, Admin{Range: leaseRange, Transfer: base.ReplicaID(to.id)})
	w.run(200 * time.Millisecond)
	delete(w.cut, [2]base.NodeID{l.id, to.id})
	w.run(6 * time.Second)
	if now := w.leader(leaseRange); now == nil || !w.leased(now) || now.lastChange[leaseRange].Term == term {
		t.Errorf("no lease after a transfer that failed:\n%s", w.trace.String())
	}
}

// A node that has started again does not know what it promised: it elects nobody for as long as any promise lasts.
func TestRuleANodeThatStartedAgainIsSilent(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) {
		if c.Incarnation > 1 {
			c.SilentFor = time.Second
		}
	})
	l := w.leader(leaseRange)
	for _, n := range w.others(l) {
		w.cut[[2]base.NodeID{l.id, n.id}], w.cut[[2]base.NodeID{n.id, l.id}] = true, true
		w.crash(n)
		w.start(n)
	}
	began := w.now
	w.run(990 * time.Millisecond)
	if now := w.leader(leaseRange); now != l {
		t.Fatalf("n%d was elected after %s, while the old lease may last:\n%s", now.id, w.now.Sub(began), w.trace.String())
	}
	w.run(4 * time.Second)
	if now := w.leader(leaseRange); now == l {
		t.Errorf("nobody was elected:\n%s", w.trace.String())
	}
}

// A node whose disk is stuck does not campaign, and if the others' votes and logs made it leader before it knew, it steps
// down: nobody ever supported its process, and it would commit and never apply.
func TestRuleAStuckDiskLeadsNothing(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	stuck, other := w.others(l)[0], w.others(l)[1]
	w.crash(stuck)
	w.withdraw(stuck.id, l.id)
	w.start(stuck)
	w.epoch[[2]base.NodeID{l.id, stuck.id}], w.epoch[[2]base.NodeID{other.id, stuck.id}] = 0, 0
	transfer := func() {
		l = w.leader(leaseRange)
		l.ev.Admin = append(l.ev.Admin, Admin{Range: leaseRange, Transfer: base.ReplicaID(stuck.id)})
		w.run(200 * time.Millisecond)
	}
	transfer() // by the leader's own word, which a replica follows without asking itself
	if w.leader(leaseRange) != stuck {
		t.Fatalf("n%d does not lead:\n%s", stuck.id, w.trace.String())
	}
	w.run(6 * time.Second)
	if w.leader(leaseRange) != stuck {
		t.Errorf("a leader steps down that asks, and that nobody ever answered:\n%s", w.trace.String())
	}
	w.mute[stuck.id] = true
	w.run(6 * time.Second)
	if now := w.leader(leaseRange); now == nil || now == stuck || !w.leased(now) {
		t.Errorf("a node with a stuck disk leads:\n%s", w.trace.String())
	}
	for _, n := range []*testNode{l, other} {
		n.stopped = true
	}
	w.trace.Reset()
	w.run(6 * time.Second)
	if strings.Contains(w.trace.String(), "MsgPreVote") {
		t.Errorf("a node with a stuck disk campaigns:\n%s", w.trace.String())
	}
}

// An idle range rests, goes cold, and is there again for a read and a proposal, under the same leader at the same term.
func TestRuleAColdRangeGoesOn(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) { c.ColdAfter = 3 * time.Second })
	l := w.leader(leaseRange)
	term := l.lastChange[leaseRange].Term
	w.run(5 * time.Second)
	for _, n := range w.sorted() {
		if n.cold == 0 || n.wake != base.Never {
			t.Errorf("n%d: went cold %d times, its next step is due at %d", n.id, n.cold, n.wake)
		}
	}
	st, ok := l.loop.Status(leaseRange)
	if !ok || st.Role != Leader || !st.Resting || st.LeaseLeft <= 0 || len(st.Supporters) != 2 || st.Leader != st.Replica {
		t.Errorf("a cold leader says of itself %+v", st)
	}
	l.ev.Reads = append(l.ev.Reads, Read{leaseRange, 99})
	w.run(50 * time.Millisecond)
	seq := w.propose(l, leaseRange, "after the cold", nil)
	w.run(2 * time.Second)
	if !outcome(l, "read 99: ready") || !outcome(l, "proposal "+itoa(seq)+": applied") {
		t.Errorf("a cold range does not serve: %v\n%s", l.outcomes, w.trace.String())
	}
	if now := l.lastChange[leaseRange].Term; now != term {
		t.Errorf("it was elected again at term %d; it led at %d", now, term)
	}
	for _, n := range w.sorted() {
		if c := n.disk.written[leaseRange].commands; len(c) == 0 || c[len(c)-1] != "after the cold" {
			t.Errorf("n%d has applied %v", n.id, c)
		}
	}
}

// A range that is kept warm rests, and its leader's lease is there for readers; one that is cold is built again by it.
func TestRuleAWarmRangeRestsAndIsNotCold(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) { c.ColdAfter = 3 * time.Second })
	l := w.leader(leaseRange)
	warm := func() { l.ev.Admin = append(l.ev.Admin, Admin{Range: leaseRange, Warm: true}) }
	for range 10 {
		warm()
		w.run(time.Second)
	}
	st, _ := l.loop.Status(leaseRange)
	if l.cold != 0 || !st.Resting || !w.leased(l) {
		t.Errorf("after ten seconds: cold %d times, %+v", l.cold, st)
	}
	w.run(5 * time.Second)
	if l.cold != 1 || w.leased(l) {
		t.Fatalf("left alone: cold %d times, and readers have its lease: %v", l.cold, w.leased(l))
	}
	warm()
	w.run(500 * time.Millisecond)
	if !w.leased(l) {
		t.Errorf("readers have no lease of a range that is warm again:\n%s", w.trace.String())
	}
}

// The same where one voter is all: a cluster of one node.
func TestRuleAColdRangeOfOneVoterGoesOn(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) { c.ColdAfter = 3 * time.Second })
	const id = leaseRange + 1
	n := w.sorted()[0]
	w.place(descriptor(id, n.id))
	n.ev.Admin = append(n.ev.Admin, Admin{Range: id, Start: true}, Admin{Range: id, Campaign: true})
	w.run(5 * time.Second)
	if w.leader(id) != n || n.cold == 0 {
		t.Fatalf("it does not lead, or is not cold:\n%s", w.trace.String())
	}
	for i := range 3 {
		cold := n.cold
		n.ev.Reads = append(n.ev.Reads, Read{id, ReadID(90 + i)})
		w.run(50 * time.Millisecond)
		seq := w.propose(n, id, "after the cold", nil)
		w.run(5 * time.Second)
		if !outcome(n, "read "+itoa(uint64(90+i))+": ready") || !outcome(n, "proposal "+itoa(seq)+": applied") || n.cold == cold {
			t.Errorf("a cold range does not serve, or stays warm: %v\n%s", n.outcomes, w.trace.String())
		}
	}
}

// The word that a leader leads no more counts also when it comes after the leader's removal from the range: else its follower,
// which has confirmed it, would hold its votes back for as long as the nodes support each other.
func TestRuleARemovedLeadersWordCounts(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	f := w.others(l)[0]
	g := f.loop.group(leaseRange)
	old := g.fort
	if !old.live || old.node != l.id {
		t.Fatalf("n%d is not fortified: %+v", f.id, old)
	}
	d := proto.CloneOf(g.log.desc)
	d.Replicas = slices.DeleteFunc(d.Replicas, func(r *metapb.Replica) bool { return r.NodeId == uint64(l.id) })
	g.log.desc = d
	f.ev.Messages = append(f.ev.Messages, Message{
		Range: leaseRange, FromNode: l.id, ToNode: f.id, FromReplica: old.replica, ToReplica: g.replica,
		Fort: &FortMessage{Kind: FortRelease, Term: old.term},
	})
	w.step(f)
	if g.fort.live {
		t.Errorf("n%d is bound by its promise to a replica that was removed:\n%s", f.id, w.trace.String())
	}
}

// A promise that reaches its leader when it leads no more is ended: the follower is bound, and the word went to others only. The
// word is said until it is heard.
func TestRuleALatePromiseIsEnded(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	was, f := w.others(l)[0], w.others(l)[1] // was: it led at an earlier term, and f promised then
	g := f.loop.group(leaseRange)
	g.fort = fortified{true, g.term - 1, was.id, was.loop.group(leaseRange).replica}
	g.electAt = base.Never
	token, _ := supports{w, was.id}.Support(f.id)
	w.cut[[2]base.NodeID{was.id, f.id}] = true // the first words are lost
	was.ev.Messages = append(was.ev.Messages, Message{
		Range: leaseRange, FromNode: f.id, ToNode: was.id, FromReplica: g.replica, ToReplica: g.fort.replica,
		Fort: &FortMessage{Kind: FortGiven, Term: g.fort.term, Token: token},
	})
	w.run(250 * time.Millisecond)
	if !g.fort.live {
		t.Fatalf("nothing had been said, and n%d is free", f.id)
	}
	delete(w.cut, [2]base.NodeID{was.id, f.id})
	w.run(time.Second)
	if g.fort.live && g.fort.node == was.id {
		t.Errorf("n%d is bound by its promise to one that leads no more:\n%s", f.id, w.trace.String())
	}
}

// Whoever steps down takes away the gate that readers see, also if what it is made of has just changed and the new one was not
// shown yet: the old one may become valid again, for the promises in it go on.
func TestRuleTheGateIsTakenAwayWhateverItIs(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	for _, n := range w.others(l) {
		w.live[[2]base.NodeID{n.id, l.id}] = false
		l.ev.Lost = append(l.ev.Lost, n.id)
	}
	l.loop.group(leaseRange).lease.stale = true // by a promise that came, or a replica that was added
	w.step(l)
	if g := l.gates[leaseRange]; g != nil {
		t.Errorf("n%d has stepped down and shows a gate of term %d:\n%s", l.id, g.Term, w.trace.String())
	}
}

// A leader that decides alone has its lease whatever was to become of its leadership.
func TestRuleASoleVoterKeepsItsLease(t *testing.T) {
	w := newLeaseWorld(t, nil)
	const id = leaseRange + 1
	n := w.sorted()[0]
	d := descriptor(id, n.id, w.sorted()[1].id)
	d.Replicas[1].Role = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	w.place(d)
	for _, o := range w.sorted()[:2] {
		o.ev.Admin = append(o.ev.Admin, Admin{Range: id, Start: true})
	}
	n.ev.Admin = append(n.ev.Admin, Admin{Range: id, Campaign: true})
	w.run(time.Second)
	keeps := func(what string) {
		t.Helper()
		w.run(3 * time.Second)
		if g := n.gates[id]; w.leader(id) != n || g == nil || g.Until(supports{w, n.id}) != base.Never {
			t.Errorf("%s: it has no lease:\n%s", what, w.trace.String())
		}
	}
	keeps("elected")
	for _, to := range []uint64{2, 1, 9} {
		n.ev.Admin = append(n.ev.Admin, Admin{Range: id, Transfer: base.ReplicaID(to)})
		keeps("told to hand over to " + itoa(to))
	}
	n.loop.giveUp(n.loop.group(id)) // to a voter that was removed since
	n.ev.Admin = append(n.ev.Admin, Admin{Range: id, Campaign: true})
	keeps("given up to one that is gone")
}

// Cold followers of a leader that is lost elect another.
func TestRuleColdFollowersElect(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) { c.ColdAfter = 3 * time.Second })
	l := w.leader(leaseRange)
	w.run(5 * time.Second)
	l.stopped = true
	for _, n := range w.others(l) {
		w.withdraw(n.id, l.id)
	}
	w.run(300 * time.Millisecond)
	if now := w.leader(leaseRange); now == nil || !w.leased(now) {
		t.Errorf("nobody leads:\n%s", w.trace.String())
	}
}

// One lost follower of a resting leader costs nothing; when it is back, the leader looks after it.
func TestRuleALostFollowerWakesNobody(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	w.run(5 * time.Second)
	lost := w.others(l)[0]
	w.crash(lost)
	w.withdraw(lost.id, l.id)
	w.run(time.Second)
	if st, _ := l.loop.Status(leaseRange); !st.Resting {
		t.Errorf("the leader does not rest:\n%s", w.trace.String())
	}
	w.start(lost)
	w.support(lost.id, l.id)
	w.support(l.id, lost.id)
	w.run(time.Second)
	if st, _ := lost.loop.Status(leaseRange); st.Fortified != l.id {
		t.Errorf("the follower that is back is not fortified: %+v\n%s", st, w.trace.String())
	}
}

func outcome(n *testNode, what string) bool {
	for _, o := range n.outcomes {
		if o == what {
			return true
		}
	}
	return false
}

func itoa(n uint64) string { return strings.TrimPrefix(base.RangeID(n).String(), "r") }

// Who has decided to vote leaves the candidate its time from then on, and not only once the vote is on disk: the leader that handed
// over says meanwhile that it leads no more.
func TestRuleAVoteThatIsBeingWrittenCounts(t *testing.T) {
	for i := range 2 {
		w := newLeaseWorld(t, nil)
		l := w.leader(leaseRange)
		to, slow := w.others(l)[i], w.others(l)[1-i]
		slow.holdSync = true
		w.trace.Reset()
		l.ev.Admin = append(l.ev.Admin, Admin{Range: leaseRange, Transfer: base.ReplicaID(to.id)})
		w.run(60 * time.Millisecond)
		if got := w.trace.String(); !strings.Contains(got, "released at term") || strings.Contains(got, "MsgPreVote") {
			t.Errorf("n%d campaigns against n%d, for which it was about to vote:\n%s", slow.id, to.id, got)
		}
		slow.holdSync = false
		w.run(time.Second)
		w.mustLead(t, to)
	}
}
