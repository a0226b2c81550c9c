package retention

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
)

// TestParse: etcd's two flags, as etcd reads them.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		mode, retention string
		want            Policy
		bad             bool
	}{
		{mode: "", retention: ""},
		{mode: "periodic", retention: "0"},
		{mode: "revision", retention: "0"},
		{mode: "", retention: "1", want: Policy{Mode: Periodic, Period: time.Hour}},
		{mode: "periodic", retention: "10h", want: Policy{Mode: Periodic, Period: 10 * time.Hour}},
		{mode: "periodic", retention: "5s", want: Policy{Mode: Periodic, Period: 5 * time.Second}},
		{mode: "periodic", retention: "0s"},
		{mode: "revision", retention: "1000", want: Policy{Mode: Revision, Revisions: 1000}},
		{mode: "revision", retention: "5m", bad: true},
		{mode: "revision", retention: "-1", bad: true},
		{mode: "periodic", retention: "-1", bad: true},
		{mode: "periodic", retention: "-5m", bad: true},
		{mode: "periodic", retention: "1ms", bad: true},
		{mode: "periodic", retention: "9223372036854775807", bad: true},
		{mode: "periodic", retention: "soon", bad: true},
		{mode: "always", retention: "1", bad: true},
	} {
		got, err := Parse(c.mode, c.retention)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q %q: %+v, %v", c.mode, c.retention, got, err)
		}
	}
}

// node is a range of a single keyspace, written to once in each look, and its keeper.
type node struct {
	t   *testing.T
	k   *Keeper
	now base.Instant
	r   Range
}

func newNode(t *testing.T, p Policy) *node {
	k, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	return &node{t: t, k: k, r: Range{ID: 4, Revision: 1, Compacted: -1}}
}

// look is one step, and what is decided carried out.
func (n *node) look() base.Revision {
	due := n.k.Step(n.now, 0, []Range{n.r})
	n.now = n.now.Add(n.k.Interval())
	n.r.Revision++
	if len(due) == 0 {
		return 0
	}
	n.r.Compacted = due[0].Revision
	return due[0].Revision
}

// TestPeriodicLongerThanAnHour: as etcd's comment has it for ten hours: nothing for the first ten, then each hour what was ten hours ago.
func TestPeriodicLongerThanAnHour(t *testing.T) {
	n := newNode(t, Policy{Mode: Periodic, Period: 10 * time.Hour})
	if n.k.Interval() != 6*time.Minute {
		t.Fatalf("looks every %s", n.k.Interval())
	}
	for i := range 100 {
		if rev := n.look(); rev != 0 {
			t.Fatalf("compacted at %d after %d looks", rev, i)
		}
	}
	for hour := range 5 {
		if rev, want := n.look(), base.Revision(1+10*hour); rev != want {
			t.Fatalf("hour %d: compacted at %d, not %d", 10+hour, rev, want)
		}
		for i := range 9 {
			if rev := n.look(); rev != 0 {
				t.Fatalf("compacted again at %d after %d looks", rev, i+1)
			}
		}
	}
}

// TestPeriodicRefused: what does not come about is due again at the next look, with what is then old enough.
func TestPeriodicRefused(t *testing.T) {
	n := newNode(t, Policy{Mode: Periodic, Period: 10 * time.Second})
	for range 10 {
		n.look()
	}
	for i := range 3 {
		due := n.k.Step(n.now, 0, []Range{n.r})
		if len(due) != 1 || due[0].Revision != base.Revision(1+i) {
			t.Fatalf("try %d: %v", i, due)
		}
		n.now = n.now.Add(n.k.Interval())
		n.r.Revision++
	}
}

// TestPeriodicNewLeader: one that leads anew has seen nothing, and keeps all for a whole period.
func TestPeriodicNewLeader(t *testing.T) {
	n := newNode(t, Policy{Mode: Periodic, Period: 10 * time.Second})
	for range 10 {
		n.look()
	}
	n.k.Step(n.now, 0, nil) // it leads nothing
	for i := range 10 {
		if rev := n.look(); rev != 0 {
			t.Fatalf("compacted at %d after %d looks", rev, i)
		}
	}
	if rev := n.look(); rev == 0 {
		t.Fatal("not compacted after a whole period")
	}
}

// TestIdle: nothing is done where nothing is written.
func TestIdle(t *testing.T) {
	n := newNode(t, Policy{Mode: Periodic, Period: 10 * time.Second})
	compactions := 0
	n.r.Revision = 7
	for range 1000 {
		if n.look() > 0 {
			compactions++
		}
		n.r.Revision = 7
	}
	if compactions != 1 {
		t.Fatalf("compacted %d times", compactions)
	}
}

// TestShardedIdleThenWritten: a sharded range of which nothing was left to compact has its mark at its last write, long ago. Written again, it
// waits for its turn all the same.
func TestShardedIdleThenWritten(t *testing.T) {
	k, err := New(Policy{Mode: Periodic, Period: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r := Range{ID: 100, Timed: true, Revision: 1_000_000, Compacted: -1}
	at := func(second int) []Decision {
		return k.Step(base.Instant(0).Add(time.Duration(second)*time.Second), int64(second)*1_000_000, []Range{r})
	}
	if due := at(60); len(due) != 1 || due[0].Revision != 1_000_000 {
		t.Fatalf("first: %v", due)
	}
	r.Compacted, r.Revision = 1_000_000, 51_000_000
	for second := 61; second < 70; second++ {
		if due := at(second); due != nil {
			t.Fatalf("again after %d s: %v", second-60, due)
		}
	}
	if due := at(70); len(due) != 1 || due[0].Revision != 51_000_000 {
		t.Fatalf("after a period: %v", due)
	}
}

// TestRevisions: by revisions, so many are kept; a sharded keyspace's are times, and are not counted.
func TestRevisions(t *testing.T) {
	n := newNode(t, Policy{Mode: Revision, Revisions: 1000})
	n.r.Revision = 1000
	if rev := n.look(); rev != 0 {
		t.Fatalf("compacted at %d", rev)
	}
	n.r.Revision = 5000
	if rev := n.look(); rev != 4000 {
		t.Fatalf("compacted at %d", rev)
	}
	n.r.Revision = 5000
	if rev := n.look(); rev != 0 {
		t.Fatalf("compacted again at %d", rev)
	}
	if due := n.k.Step(n.now, 1e12, []Range{{ID: 100, Timed: true, Revision: 1e12, Compacted: -1}}); due != nil {
		t.Fatalf("sharded: %v", due)
	}
}

// TestLaws: whatever happens, a compaction by time never takes what was current within the period, goes forward only, and comes at
// most once in an hour or a period, also where nothing was left to compact; and what was written once and is older than both is gone.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := time.Duration(rapid.Int64Range(int64(time.Second), int64(3*time.Hour)).Draw(t, "period"))
		k, err := New(Policy{Mode: Periodic, Period: period})
		if err != nil {
			t.Fatal(err)
		}
		sharded := rapid.Bool().Draw(t, "sharded")
		r := Range{ID: 1, Timed: sharded, Revision: 1, Compacted: -1}
		type write struct {
			at  base.Instant
			rev base.Revision
		}
		writes := []write{{0, 1}}
		last := base.Instant(-1)
		now := base.Instant(0)
		step := func() {
			micros := time.Duration(now).Microseconds()
			for _, d := range k.Step(now, micros, []Range{r}) {
				if d.Revision <= r.Compacted || d.Revision > r.Revision {
					t.Fatalf("compacted at %d of %d, compacted %d", d.Revision, r.Revision, r.Compacted)
				}
				current := base.Revision(0) // when the period began
				for _, w := range writes {
					if now.Sub(w.at) >= period {
						current = w.rev
					}
				}
				if !sharded && d.Revision > current || sharded && time.Duration(d.Revision)*time.Microsecond > time.Duration(now)-period {
					t.Fatalf("compacted at %d, %d was current a period ago", d.Revision, current)
				}
				if last >= 0 && now.Sub(last) < min(period, time.Hour)-time.Millisecond {
					t.Fatalf("compacted after %s again", now.Sub(last))
				}
				if rapid.IntRange(0, 9).Draw(t, "refused") > 0 {
					r.Compacted, last = d.Revision, now
				}
			}
			now = now.Add(k.Interval())
		}
		for range rapid.IntRange(1, 200).Draw(t, "looks") {
			if rapid.Bool().Draw(t, "written") {
				r.Revision++
				if sharded {
					r.Revision = max(r.Revision, base.Revision(time.Duration(now).Microseconds()))
				}
				writes = append(writes, write{now, r.Revision})
			}
			for range 1 + max(0, rapid.IntRange(-200, 30).Draw(t, "quiet")) {
				step()
			}
		}
		for range 400 { // with so many tries none is refused for ever
			step()
		}
		if r.Compacted != r.Revision && r.Compacted < r.Revision-1 {
			t.Fatalf("at %d, and compacted only at %d", r.Revision, r.Compacted)
		}
	})
}
