package apply

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/desc"
)

// A range that was never in a log begins as if entries up to InitialIndex, of InitialTerm, had made it. So a replica
// that has nothing can be told from one that has all of a young log: it is sent a snapshot, never the log from its
// beginning.
const (
	InitialIndex = 10
	InitialTerm  = 5
)

// Bootstrap writes the replicated state of a new range. The unreplicated part (raft log, replica id) is the caller's,
// and goes into the same batch.
func Bootstrap(w engine.Writer, d *metapb.RangeDescriptor) error {
	return BootstrapAt(w, d, eval.FirstCounters(), 0)
}

// BootstrapAt is Bootstrap for a range that has a past: its data and its leases, which the caller writes, are of these revisions, and of no
// higher number of a grant.
func BootstrapAt(w engine.Writer, d *metapb.RangeDescriptor, c eval.Counters, grants int64) error {
	if err := desc.Validate(d); err != nil {
		return fmt.Errorf("the first descriptor of a range: %w", err)
	}
	r := Replica{id: base.RangeID(d.RangeId), desc: d, counters: c, grants: grants}
	r.applied = position{InitialIndex, InitialTerm}
	return r.writeChanged(w, &Replica{})
}

// LoadDescriptor reads the descriptor of a range's replica. Nil, and no error, if the store holds none that is initialised.
func LoadDescriptor(r engine.Reader, id base.RangeID) (*metapb.RangeDescriptor, error) {
	raw, err := r.Get(keys.RangeDescriptor(id))
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := desc.Decode(raw)
	if err != nil {
		return nil, corruptState(keys.RangeDescriptor(id), err)
	}
	if base.RangeID(d.RangeId) != id {
		return nil, corruptState(keys.RangeDescriptor(id), fmt.Errorf("it is that of %s", base.RangeID(d.RangeId)))
	}
	return d, nil
}

// Load reads a range's replica. Nil, and no error, if the store holds none that is initialised.
func Load(r engine.Reader, id base.RangeID) (*Replica, error) {
	d, err := LoadDescriptor(r, id)
	if d == nil || err != nil {
		return nil, err
	}
	rep := &Replica{id: id, desc: d}
	raw, err := r.Get(keys.RangeApplied(id))
	if err != nil {
		return nil, missing(keys.RangeApplied(id), err)
	}
	if rep.applied, err = decodePosition(raw); err != nil {
		return nil, corruptState(keys.RangeApplied(id), err)
	}
	if raw, err = r.Get(keys.RangeCounters(id)); err != nil {
		return nil, missing(keys.RangeCounters(id), err)
	}
	if err := rep.counters.Unmarshal(raw); err != nil {
		return nil, corruptState(keys.RangeCounters(id), err)
	}
	grants, err := readNumber(r, keys.RangeLeaseGrants(id)) // absent in a range that has never granted a lease
	if err != nil {
		return nil, err
	}
	rep.grants = int64(grants)
	if mutant.Is(mutant.RevisionNotRestored) {
		rep.counters = eval.FirstCounters()
	}
	return rep, nil
}

// writeChanged writes what differs from before.
func (r *Replica) writeChanged(w engine.Writer, before *Replica) error {
	if r.desc != before.desc {
		raw, err := desc.Encode(r.desc)
		if err != nil {
			return err
		}
		if err := w.Set(keys.RangeDescriptor(r.id), raw); err != nil {
			return err
		}
	}
	if r.counters != before.counters {
		if err := w.Set(keys.RangeCounters(r.id), r.counters.Marshal()); err != nil {
			return err
		}
	}
	if r.grants != before.grants {
		if err := w.Set(keys.RangeLeaseGrants(r.id), numberBytes(uint64(r.grants))); err != nil {
			return err
		}
	}
	if mutant.Is(mutant.AppliedOutsideBatch) && before.desc != nil {
		return w.Set(keys.RangeApplied(r.id), encodePosition(before.applied))
	}
	if r.applied != before.applied {
		return w.Set(keys.RangeApplied(r.id), encodePosition(r.applied))
	}
	return nil
}

func encodePosition(p position) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), p.index)
	return binary.BigEndian.AppendUint64(b, p.term)
}

func decodePosition(b []byte) (position, error) {
	if len(b) != 16 {
		return position{}, fmt.Errorf("%d bytes are no index and term", len(b))
	}
	p := position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	if p.index < InitialIndex || p.term < InitialTerm {
		return position{}, fmt.Errorf("index %d of term %d lies before the beginning", p.index, p.term)
	}
	return p, nil
}

// missing is a state that lacks a part: what is written as one was not read as one.
func missing(key []byte, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return corruptState(key, err)
	}
	return err
}

func corruptState(key []byte, cause error) error {
	return &base.Corruption{Where: keys.Pretty(key), Cause: cause}
}
