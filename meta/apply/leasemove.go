package apply

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// What a split and a merge do with leases of clients. Their state lies under the range's id, so that, other than the data, it is rewritten
// where it changes hands: about a hundred bytes for each lease and each key that a lease holds, all of it in the batch of the split or
// merge. 100,000 such keys take about a tenth of a second of the range's applier (BenchmarkSplitLeased).
//
// A lease's record goes where the key of its home lies, a guest's spans and the index of keys where their keys do. A lease that holds
// keys in the part of its home that it does not live in any more becomes a guest there, and its record says so.

// splitLeases divides the leases of a range that is cut into left, which keeps the range's id, and right. What it writes is seen by whoever
// begins to iterate later.
func (p *pass) splitLeases(left, right *metapb.RangeDescriptor) error {
	from, to := p.id, base.RangeID(right.RangeId)
	if err := p.splitHeld(left, right); err != nil {
		return err
	}
	err := scan(p.batch, keys.RangeLeaseSpan(from, 0), func(k, v []byte) error {
		id, _, _ := keys.LeaseOf(k)
		if bytes.Compare(eval.LeaseHome(id), right.Start) < 0 {
			return nil
		}
		return p.move(k, keys.RangeLease(to, id), v)
	})
	if err != nil {
		return err
	}
	err = scan(p.batch, keys.RangeLeaseGuestSpan(from), func(k, v []byte) error {
		id, _, _ := keys.LeaseOf(k)
		guest := &kvpb.LeaseGuest{}
		if err := proto.Unmarshal(v, guest); err != nil {
			return corruptState(k, err)
		}
		l, r := clipSpans(guest.Spans, left.Start, left.End), clipSpans(guest.Spans, right.Start, right.End)
		if err := p.clipGuest(from, id, guest, l); err != nil {
			return err
		}
		if r == nil {
			return nil
		}
		return p.clipGuest(to, id, guest, r)
	})
	if err != nil {
		return err
	}
	return scan(p.batch, keys.RangeLeaseEvictedSpan(from), func(k, v []byte) error {
		return p.batch.Set(keys.RangeLeaseEvicted(to, k[len(k)-1]), v)
	})
}

// clipGuest writes a guest with other spans, or none.
func (p *pass) clipGuest(r base.RangeID, id int64, guest *kvpb.LeaseGuest, spans []*kvpb.LeaseSpan) error {
	if spans == nil {
		return p.batch.Delete(keys.RangeLeaseGuest(r, id))
	}
	return p.setGuest(r, id, &kvpb.LeaseGuest{GrantedRevision: guest.GrantedRevision, Spans: spans})
}

// splitHeld divides the index of keys, and makes guests of the leases that hold some beyond the cut.
func (p *pass) splitHeld(left, right *metapb.RangeDescriptor) error {
	var id int64
	var holds [2]bool // keys on the left, on the right
	err := scan(p.batch, keys.RangeLeaseKeysSpan(p.id), func(k, v []byte) error {
		lease, key, _ := keys.LeaseOf(k)
		if lease != id {
			if err := p.splitHome(id, holds, left, right); err != nil {
				return err
			}
			id, holds = lease, [2]bool{}
		}
		if bytes.Compare(key, right.Start) < 0 {
			holds[0] = true
			return nil
		}
		holds[1] = true
		return p.move(k, keys.RangeLeaseKey(base.RangeID(right.RangeId), lease, key), v)
	})
	if err != nil {
		return err
	}
	return p.splitHome(id, holds, left, right)
}

// splitHome makes a lease that lives here a guest of the part of its home where it holds keys and does not live. It is still written
// under the id of the left part. One that is ending takes no more keys anywhere, and becomes no guest: parts of that span may have been
// evicted already.
func (p *pass) splitHome(id int64, holds [2]bool, left, right *metapb.RangeDescriptor) error {
	away := right
	if bytes.Compare(eval.LeaseHome(id), right.Start) >= 0 {
		away, holds[1] = left, holds[0]
	}
	if !holds[1] || mutant.Is(mutant.LeaseSplitForgetsGuest) {
		return nil
	}
	rec, err := eval.ReadLease(p.batch, p.id, id)
	if rec == nil || err != nil {
		return err // it lives elsewhere, and is a guest already
	}
	span := &kvpb.LeaseSpan{Start: away.Start, End: away.End}
	rec.Spans = addSpan(rec.Spans, span, base.LeaseSpans)
	if err := writeLease(p.batch, p.id, rec); err != nil || rec.Ending {
		return err
	}
	guest := &kvpb.LeaseGuest{GrantedRevision: rec.GrantedRevision, Spans: []*kvpb.LeaseSpan{span}}
	return p.setGuest(base.RangeID(away.RangeId), id, guest)
}

// mergeLeases takes the leases of a range over, which is frozen: every replica finds the same.
func (p *pass) mergeLeases(right base.RangeID) error {
	err := scan(p.batch, keys.RangeLeaseSpan(right, 0), func(k, v []byte) error {
		id, _, _ := keys.LeaseOf(k)
		if err := p.batch.Delete(keys.RangeLeaseGuest(p.id, id)); err != nil {
			return err
		}
		return p.batch.Set(keys.RangeLease(p.id, id), v)
	})
	if err != nil {
		return err
	}
	err = scan(p.batch, keys.RangeLeaseGuestSpan(right), func(k, v []byte) error { return p.mergeGuest(k, v) })
	if err != nil {
		return err
	}
	err = scan(p.batch, keys.RangeLeaseKeysSpan(right), func(k, v []byte) error {
		id, key, _ := keys.LeaseOf(k)
		return p.batch.Set(keys.RangeLeaseKey(p.id, id, key), v)
	})
	if err != nil {
		return err
	}
	err = scan(p.batch, keys.RangeLeaseEvictedSpan(right), func(k, _ []byte) error {
		theirs, err := readNumber(p.batch, k)
		if err != nil {
			return err
		}
		group := k[len(k)-1]
		mine, err := p.evicted(group)
		if err != nil || uint64(mine) >= theirs {
			return err
		}
		return p.batch.Set(keys.RangeLeaseEvicted(p.id, group), numberBytes(theirs))
	})
	if err != nil {
		return err
	}
	grants, err := readNumber(p.batch, keys.RangeLeaseGrants(right))
	p.grants = max(p.grants, int64(grants))
	return err
}

// mergeGuest unites a guest of the right range with what its lease is here: it may live here, or be a guest of both.
func (p *pass) mergeGuest(k, v []byte) error {
	id, _, _ := keys.LeaseOf(k)
	theirs := &kvpb.LeaseGuest{}
	if err := proto.Unmarshal(v, theirs); err != nil {
		return corruptState(k, err)
	}
	rec, err := eval.ReadLease(p.batch, p.id, id)
	if rec != nil || err != nil {
		return err
	}
	mine, err := eval.ReadLeaseGuest(p.batch, p.id, id)
	if err != nil {
		return err
	}
	for _, s := range mine.GetSpans() {
		theirs.Spans = addSpan(theirs.Spans, s, 0)
	}
	return p.setGuest(p.id, id, theirs)
}

// move gives a pair another key.
func (p *pass) move(from, to, value []byte) error {
	if err := p.batch.Delete(from); err != nil {
		return err
	}
	return p.batch.Set(to, value)
}

// scan visits the pairs of a span that are there when it begins.
func scan(r engine.Reader, span engine.Span, visit func(k, v []byte) error) error {
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.Value(); err == nil {
			err = visit(it.Key(), v)
		}
	}
	if err == nil {
		err = it.Error()
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return err
}
