package lessor_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/lessor"
)

// world is a range whose leaders come and go, with leases that clients keep alive or not. It knows by itself how much of the time a
// client could have kept its lease alive in.
type world struct {
	*rapid.T
	l       *lessor.Lessor
	now     base.Instant
	began   base.Instant // of the leadership
	steps   []step       // of the leadership
	until   base.Instant // the range's lease holds until then
	grants  int64
	leases  map[int64]*known
	pending []asked // revokes that were asked for and whose end is not told yet
}

type asked struct {
	lessor.Revoke
	at base.Instant
}

// step is a call of Step: whether the range's lease held.
type step struct {
	at    base.Instant
	valid bool
}

// known is a lease that lives in the range.
type known struct {
	rec   *kvpb.LeaseRecord
	from  base.Instant // when its TTL began last in this leadership
	asked bool         // to be revoked in this leadership
	lost  bool         // a keep-alive was told that its time is over, in this leadership
}

// lived is how much of the time from an instant on the leader was there and its lease held, as far as it could know.
func (w *world) lived(from base.Instant) (sum time.Duration) {
	last := step{at: w.began}
	for _, s := range w.steps {
		if last.valid && s.valid && s.at.Sub(last.at) <= base.LessorLate && s.at > from {
			sum += s.at.Sub(max(from, last.at))
		}
		last = s
	}
	return sum
}

func (w *world) elect() {
	w.l, w.began, w.steps, w.pending = lessor.New(w.now), w.now, nil, nil
	var all []*kvpb.LeaseRecord
	for id := int64(1); id <= 8; id++ {
		if k := w.leases[id]; k != nil {
			all = append(all, k.rec)
			k.from, k.asked, k.lost = w.now, false, false
		}
	}
	w.l.Load(all, w.now)
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// step steps the lessor, and looks at what it wants.
func (w *world) step() {
	valid := w.now < w.until
	w.steps = append(w.steps, step{w.now, valid})
	revokes, wake := w.l.Step(w.now, w.until)
	if len(revokes) > 0 && !valid {
		w.Fatalf("it revokes %v without a lease", revokes)
	}
	if wake < w.now || len(w.leases) > 0 && wake.Sub(w.now) > base.LessorInterval {
		w.Fatalf("at %d it wants to be called at %d", w.now, wake)
	}
	for _, r := range revokes {
		k := w.leases[r.ID]
		switch {
		case k == nil || k.rec.GrantedRevision != r.Granted:
			w.Fatalf("it revokes %v, which is not there", r)
		case !k.rec.Ending && w.lived(k.from) < time.Duration(k.rec.Ttl)*time.Second:
			w.Fatalf("it revokes %v after %s of %d s", r, w.lived(k.from), k.rec.Ttl)
		}
		w.pending = slices.DeleteFunc(w.pending, func(a asked) bool {
			if a.Revoke == r && w.now.Sub(a.at) < base.LeaseRevokePatience {
				w.Fatalf("it revokes %v twice at once", r)
			}
			return a.Revoke == r
		})
		k.asked = true
		w.pending = append(w.pending, asked{r, w.now})
	}
	if len(w.pending) > base.LeaseRevokesAtOnce {
		w.Fatalf("%d revokes are under way", len(w.pending))
	}
	if len(w.leases) != w.l.Len() {
		w.Fatalf("it knows %d leases of %d", w.l.Len(), len(w.leases))
	}
}

// finish ends a revoke that is under way.
func (w *world) finish(done bool) {
	if len(w.pending) == 0 {
		return
	}
	r := w.pending[0].Revoke
	w.pending = w.pending[1:]
	if !done {
		w.l.Failed(r, w.now)
		return
	}
	delete(w.leases, r.ID)
	w.l.Gone(r.ID, r.Granted)
}

func (w *world) grant(id int64) {
	if w.leases[id] != nil {
		return
	}
	w.grants++
	rec := &kvpb.LeaseRecord{Id: id, Ttl: rapid.SampledFrom([]int64{2, 3, 5, 60, base.LeaseMaxTTL}).Draw(w.T, "ttl"), GrantedRevision: w.grants}
	w.leases[id] = &known{rec: rec, from: w.now}
	w.l.Changed(rec, w.now)
}

func (w *world) keepAlive(id int64) {
	k := w.leases[id]
	ttl, ending := w.l.KeepAlive(id, w.now)
	switch {
	case ending != (k != nil && ttl == 0):
		w.Fatalf("lease %d is ending: %v; it is there: %v, and is kept for %d s", id, ending, k != nil, ttl)
	case k == nil && ttl != 0:
		w.Fatalf("lease %d is kept alive, and is not there", id)
	case k == nil:
	case ttl == 0:
		// It says so only if the lease is being revoked, or would be now.
		if !k.asked && !k.rec.Ending && !k.lost && w.now.Sub(k.from) < time.Duration(k.rec.Ttl)*time.Second {
			w.Fatalf("lease %d is over after %s of %d s", id, w.now.Sub(k.from), k.rec.Ttl)
		}
		k.lost = true
	case ttl != k.rec.Ttl:
		w.Fatalf("lease %d is kept for %d s of %d", id, ttl, k.rec.Ttl)
	case k.asked || k.lost || k.rec.Ending:
		w.Fatalf("lease %d is kept alive, and its time was said to be over", id)
	default:
		k.from = w.now
		if left, ok := w.l.Remaining(id, w.now); !ok || left != time.Duration(ttl)*time.Second {
			w.Fatalf("lease %d has %s of %d s", id, left, ttl)
		}
	}
}

func (w *world) mark(id int64) {
	if k := w.leases[id]; k != nil && !k.rec.Ending {
		k.rec = &kvpb.LeaseRecord{Id: id, Ttl: k.rec.Ttl, GrantedRevision: k.rec.GrantedRevision, Ending: true}
		w.l.Changed(k.rec, w.now)
	}
}

// act does one thing of those that happen.
func (w *world) act() {
	id := rapid.Int64Range(1, 8).Draw(w.T, "id")
	switch rapid.IntRange(0, 13).Draw(w.T, "act") {
	case 0, 1:
		w.grant(id)
	case 2, 3:
		if w.now < w.until {
			w.keepAlive(id)
		}
	case 4, 5, 6:
		w.pass(time.Duration(rapid.Int64Range(1, int64(base.LessorInterval)).Draw(w.T, "time")))
		w.until = max(w.until, w.now.Add(base.SupportDuration))
		w.step()
	case 7: // a pause, in which the lease may have lapsed or not
		w.pass(time.Duration(rapid.Int64Range(0, int64(8*time.Second)).Draw(w.T, "pause")))
		if rapid.Bool().Draw(w.T, "renewed") {
			w.until = w.now.Add(base.SupportDuration)
		}
		w.step()
	case 8:
		w.finish(true)
	case 9:
		w.finish(false)
	case 10:
		w.mark(id)
	case 11:
		if rapid.IntRange(0, 3).Draw(w.T, "election") == 0 {
			w.pass(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(w.T, "without")))
			w.elect()
		}
	case 12: // what is told late
		if k := w.leases[id]; k != nil {
			old := &kvpb.LeaseRecord{Id: id, Ttl: k.rec.Ttl, GrantedRevision: k.rec.GrantedRevision - 1}
			w.l.Changed(old, w.now)
			w.l.Gone(id, old.GrantedRevision)
			w.l.Load([]*kvpb.LeaseRecord{k.rec}, w.now)
		}
	case 13:
		for range rapid.IntRange(1, 30).Draw(w.T, "calm") {
			w.calm()
		}
	}
}

// calm is a quarter of a second in which nothing goes wrong.
func (w *world) calm() {
	w.pass(base.LessorInterval)
	w.until = w.now.Add(base.SupportDuration)
	w.step()
}

// TestNeverEarlyAlwaysInTheEnd: whatever happens to leaders, clocks and revokes, no lease is revoked before its client had its whole TTL to keep it
// alive in, counted from the last time it did or from the election; and once all is calm, each ends that nobody keeps alive.
func TestNeverEarlyAlwaysInTheEnd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{T: rt, now: base.Instant(rapid.SampledFrom([]int64{0, 1 << 40, math.MaxInt64 / 1000}).Draw(rt, "now")), leases: map[int64]*known{}}
		w.elect()
		for range rapid.IntRange(1, 60).Draw(rt, "acts") {
			w.act()
		}
		end := w.now.Add(60*time.Second + base.LeaseRevokePatience + 2*base.LeaseRevokeRetry)
		for w.now < end {
			w.calm()
			for len(w.pending) > 0 {
				w.finish(true)
			}
		}
		for id, k := range w.leases {
			if k.rec.Ttl < base.LeaseMaxTTL || k.rec.Ending {
				rt.Fatalf("lease %d never ends: %v", id, k)
			}
		}
	})
}
