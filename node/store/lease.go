package store

import (
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// Lease is a leader's lease as one read sees it: it is looked at before the engine is read and again after.
type Lease struct {
	s    *Store
	r    *replica
	term uint64
}

// Lease returns the lease that the local replica of a range holds now; false if it holds none. It asks nobody.
func (s *Store) Lease(id base.RangeID) (Lease, bool) {
	r := s.replica(id)
	if r == nil {
		return Lease{}, false
	}
	gate := r.gate.Load()
	now := s.Now()
	if mutant.Is(mutant.LeaseRemembered) && gate != nil {
		now = now.Add(-s.cfg.SupportDuration)
	}
	if gate == nil || now >= gate.Until(s.supports) {
		return Lease{}, false
	}
	return Lease{s, r, gate.Term}, true
}

// Valid says whether the lease still holds: what was read since it was taken is then as new as it must be.
func (l Lease) Valid() bool {
	gate := l.r.gate.Load()
	return gate != nil && gate.Term == l.term && l.s.Now() < gate.Until(l.s.supports)
}

// Term is the one that the lease is of.
func (l Lease) Term() uint64 { return l.term }

// Until is the end of the lease as far as is known now; 0: it has ended.
func (l Lease) Until() base.Instant {
	if gate := l.r.gate.Load(); gate != nil && gate.Term == l.term {
		return gate.Until(l.s.supports)
	}
	return 0
}

// Caught says whether the local replica has applied all that any other can have shown to its readers.
func (l Lease) Caught() bool {
	v := l.r.view.Load() // nil: it has gone cold, and its gate with it
	return v != nil && v.AppliedIndex >= l.r.committed.Load() || mutant.Is(mutant.LeaseBehindCommit)
}

// ReadLeased is a linearizable Read without a question to anybody, on the caller's goroutine; false if this node does not
// lead the range under a lease: then nothing is known.
func (s *Store) ReadLeased(id base.RangeID, req, out proto.Message) (bool, error) {
	lease, ok := s.Lease(id)
	if !ok || !lease.Caught() {
		return false, nil
	}
	err := s.Read(id, req, out)
	if !lease.Valid() {
		return false, nil
	}
	return true, err
}
