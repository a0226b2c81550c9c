package lessor_test

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/lessor"
)

func records(n int, ttl int64) []*kvpb.LeaseRecord {
	out := make([]*kvpb.LeaseRecord, n)
	for i := range out {
		out[i] = &kvpb.LeaseRecord{Id: int64(i + 1), Ttl: ttl, GrantedRevision: int64(i + 1)}
	}
	return out
}

func TestGrantTTL(t *testing.T) {
	for asked, want := range map[int64]int64{-5: base.LeaseMinTTL, 0: base.LeaseMinTTL, 1: base.LeaseMinTTL, 60: 60, base.LeaseMaxTTL: base.LeaseMaxTTL} {
		if got, err := lessor.GrantTTL(asked); got != want || err != nil {
			t.Errorf("%d: %d, %v", asked, got, err)
		}
	}
	if _, err := lessor.GrantTTL(base.LeaseMaxTTL + 1); !errors.Is(err, rpctypes.ErrGRPCLeaseTTLTooLarge) {
		t.Error(err)
	}
}

// Ten thousand leases that end at once are revoked as fast as revokes end, a bounded number at a time.
func TestManyAtOnce(t *testing.T) {
	const n = 10_000
	now := base.Instant(0)
	l := lessor.New(now)
	l.Load(records(n, 2), now)
	ended, first := 0, base.Instant(0)
	for steps := 0; l.Len() > 0; steps++ {
		if steps > 100 {
			t.Fatalf("%d leases are left", l.Len())
		}
		revokes, wake := l.Step(now, base.Never)
		if len(revokes) > base.LeaseRevokesAtOnce {
			t.Fatalf("%d revokes at once", len(revokes))
		}
		if ended == 0 && len(revokes) > 0 {
			first = now
		}
		for _, r := range revokes {
			l.Gone(r.ID, r.Granted)
			ended++
		}
		if len(revokes) == 0 {
			now = wake
		}
	}
	if ended != n || first != base.Instant(2*time.Second) || now != first {
		t.Errorf("%d ended, from %s to %s", ended, time.Duration(first), time.Duration(now))
	}
}

// A lessor that is stepped when it wants to be revokes in time, and is not stepped for each lease that is kept alive.
func TestOnTime(t *testing.T) {
	const n = 10_000
	l := lessor.New(0)
	l.Load(records(n, 10), 0)
	ends := map[int64]base.Instant{}
	steps := 0
	for i, now := int64(0), base.Instant(0); l.Len() > 0; steps++ {
		for ; i < n && now < base.Instant(10*time.Second); i++ { // each is kept alive once, at some time of the ten seconds
			if at := base.Instant(i * int64(10*time.Second) / n); at > now {
				break
			}
			if ttl, _ := l.KeepAlive(i+1, now); ttl != 10 {
				t.Fatalf("lease %d is gone at %d", i+1, now)
			}
			ends[i+1] = now.Add(10 * time.Second)
		}
		revokes, wake := l.Step(now, base.Never)
		for _, r := range revokes {
			end := max(ends[r.ID], base.Instant(10*time.Second))
			if now < end || now.Sub(end) > base.LessorSoonest {
				t.Fatalf("lease %d is revoked %s after its end", r.ID, now.Sub(end))
			}
			l.Gone(r.ID, r.Granted)
		}
		now = wake
	}
	if most := int(20*time.Second/base.LessorSoonest) + 1; steps > most {
		t.Errorf("%d steps, more than %d", steps, most)
	}
}

// A revoke of which nothing is heard is asked for again, and so is one that somebody began and did not end.
func TestRevokedAgain(t *testing.T) {
	now := base.Instant(0)
	l := lessor.New(now)
	l.Load(records(1, 2), now)
	l.Changed(&kvpb.LeaseRecord{Id: 7, Ttl: 60, GrantedRevision: 7, Ending: true}, now)
	asked := map[int64][]time.Duration{}
	for now < base.Instant(20*time.Second) {
		revokes, _ := l.Step(now, base.Never)
		for _, r := range revokes {
			asked[r.ID] = append(asked[r.ID], time.Duration(now))
		}
		now = now.Add(base.LessorInterval)
	}
	if got := asked[1]; len(got) != 2 || got[0] != 2*time.Second || got[1] != 2*time.Second+base.LeaseRevokePatience {
		t.Errorf("lease 1: %v", got)
	}
	if got := asked[7]; len(got) != 1 || got[0] != base.LeaseEndingPatience {
		t.Errorf("lease 7: %v", got)
	}
	// A new leader does not know how long it has been ending.
	l = lessor.New(now)
	l.Load([]*kvpb.LeaseRecord{{Id: 7, Ttl: 60, GrantedRevision: 7, Ending: true}}, now)
	if revokes, _ := l.Step(now, base.Never); len(revokes) != 1 {
		t.Errorf("the new leader revokes %v", revokes)
	}
}

// What a split takes away is not revoked here, and what a merge brings has its whole TTL.
func TestSplitAndMerge(t *testing.T) {
	now := base.Instant(0)
	l := lessor.New(now)
	all := records(4, 2)
	l.Load(all[:2], now)
	for ; now <= base.Instant(time.Second); now = now.Add(base.LessorInterval) {
		l.Step(now, base.Never)
	}
	l.Retain(func(id int64) bool { return id == 2 })
	l.Load(all[1:], now) // as it is read: what was known is among it
	if left, ok := l.Remaining(2, now); !ok || left > time.Second {
		t.Errorf("lease 2 has %s, %v", left, ok)
	}
	if left, ok := l.Remaining(3, now); !ok || left != 2*time.Second {
		t.Errorf("lease 3 has %s, %v", left, ok)
	}
	if _, ok := l.Remaining(1, now); ok {
		t.Error("lease 1 is still here")
	}
	if ttl, ending := l.KeepAlive(1, now); ttl != 0 || ending {
		t.Errorf("lease 1 is still here: %d, %v", ttl, ending)
	}
}

// A lease whose time is over is ending until it is revoked, and so is one that somebody revokes in many ranges: it is there, and has no time left.
func TestEndingUntilRevoked(t *testing.T) {
	now := base.Instant(0)
	l := lessor.New(now)
	l.Load(records(2, 2), now)
	l.Changed(&kvpb.LeaseRecord{Id: 2, Ttl: 2, GrantedRevision: 2, Ending: true}, now)
	is := func(id int64, want bool, when string) {
		t.Helper()
		ttl, ending := l.KeepAlive(id, now)
		left, known := l.Remaining(id, now)
		if ttl != 0 || left != 0 || ending != want || known != want {
			t.Errorf("lease %d %s: kept for %d s, ending %v; %s left, known %v", id, when, ttl, ending, left, known)
		}
	}
	is(2, true, "which somebody has begun to revoke")
	l.Step(now, base.Never)
	for now < base.Instant(2*time.Second) {
		now = now.Add(base.LessorInterval)
		l.Step(now.Add(-1), base.Never)
	}
	is(1, true, "when its time is over and no step has seen that")
	revokes, _ := l.Step(now, base.Never)
	if len(revokes) != 1 || revokes[0].ID != 1 {
		t.Fatalf("revoked are %v", revokes)
	}
	is(1, true, "that is being revoked")
	l.Failed(revokes[0], now)
	is(1, true, "whose revoke failed")
	for id := int64(1); id <= 2; id++ {
		l.Gone(id, id)
		is(id, false, "that is gone")
	}
}

// A million leases, each kept alive once: what a keep-alive and the step costs.
func BenchmarkKeepAlive(b *testing.B) {
	const n = 1_000_000
	l := lessor.New(0)
	l.Load(records(n, 60), 0)
	now := base.Instant(0)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if ttl, _ := l.KeepAlive(int64(i*7919%n+1), now); ttl == 0 {
			b.Fatal("gone")
		}
		if i%1000 == 0 {
			now = now.Add(20 * time.Millisecond) // a million in 20 s
			l.Step(now, base.Never)
		}
	}
}
