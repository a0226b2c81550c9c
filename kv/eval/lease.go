package eval

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// This file is what writes have to do with leases of clients (RFC 6).
//
// Which leases a range takes keys of is its replicated state, next to its data: those that live in it (keys.RangeLease), and guests
// (keys.RangeLeaseGuest). Which keys a lease holds is an index (keys.RangeLeaseKey), which every write keeps: a key is in it for
// exactly the lease of its newest version. A write that has to do with no lease, before or after, reads and writes nothing of all this.
//
// The records themselves are written by the commands of leases (meta/apply/lease.go).

// LeaseHome is the user's key by which a lease finds its home: the range that holds it.
func LeaseHome(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// LeaseSpanHas says whether a key lies in one of the spans.
func LeaseSpanHas(spans []*kvpb.LeaseSpan, key []byte) bool {
	for _, s := range spans {
		if bytes.Compare(s.Start, key) <= 0 && (len(s.End) == 0 || bytes.Compare(key, s.End) < 0) {
			return true
		}
	}
	return false
}

// holding is where a range takes keys of a lease: everywhere if the lease lives there.
type holding struct {
	home  bool
	spans []*kvpb.LeaseSpan
}

func (h holding) has(key []byte) bool { return h.home || LeaseSpanHas(h.spans, key) }

// checkLease asks whether the range takes a key of a lease now.
func (p *Pass) checkLease(env *Env, id int64, key []byte) error {
	if id == 0 {
		return nil
	}
	h, ok := p.heads.lease(id)
	if !ok {
		var err error
		if h, err = p.readHolding(env.Range, id); err != nil {
			return err
		}
		p.heads.putLease(id, h)
	}
	if !h.has(key) {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	return nil
}

func (p *Pass) readHolding(r base.RangeID, id int64) (holding, error) {
	rec, err := ReadLease(p.b, r, id)
	if err != nil || rec != nil {
		return holding{home: rec != nil && !rec.Ending}, err
	}
	guest, err := ReadLeaseGuest(p.b, r, id)
	return holding{spans: guest.GetSpans()}, err
}

// LeaseChanged has the pass read a lease anew: its record, or what it is as a guest, was written.
func (p *Pass) LeaseChanged(id int64) { p.heads.dropLease(id) }

// rehold moves a key in the index from the lease of the version before to that of the newest.
func (w *write) rehold(key []byte, was, is int64) error {
	if was == is {
		return nil
	}
	if was != 0 && !mutant.Is(mutant.LeaseIndexForgets) {
		if err := w.p.b.Delete(keys.RangeLeaseKey(w.env.Range, was, key)); err != nil {
			return err
		}
	}
	if is == 0 {
		return nil
	}
	return w.p.b.Set(keys.RangeLeaseKey(w.env.Range, is, key), nil)
}

// ReadLease reads a lease that lives in a range. Nil, and no error: there is none of that id.
func ReadLease(r engine.Reader, id base.RangeID, lease int64) (*kvpb.LeaseRecord, error) {
	rec := &kvpb.LeaseRecord{}
	if ok, err := readState(r, keys.RangeLease(id, lease), rec); !ok || err != nil {
		return nil, err
	}
	return rec, nil
}

// ReadLeaseGuest reads what a lease of another range is in this one. Nil, and no error: nothing.
func ReadLeaseGuest(r engine.Reader, id base.RangeID, lease int64) (*kvpb.LeaseGuest, error) {
	guest := &kvpb.LeaseGuest{}
	if ok, err := readState(r, keys.RangeLeaseGuest(id, lease), guest); !ok || err != nil {
		return nil, err
	}
	return guest, nil
}

func readState(r engine.Reader, key []byte, m proto.Message) (bool, error) {
	raw, err := r.Get(key)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, decodeState(key, raw, m)
}

func decodeState(key, raw []byte, m proto.Message) error {
	if err := proto.Unmarshal(raw, m); err != nil {
		return &base.Corruption{Where: keys.Pretty(key), Cause: err}
	}
	return nil
}

// ReadLeases reads up to limit of the leases that live in a range, in the order of their ids as eight bytes, from one on. next is where the
// following page begins; 0 says that there is none, and is where the first page begins.
func ReadLeases(r engine.Reader, id base.RangeID, from int64, limit int) (leases []*kvpb.LeaseRecord, next int64, err error) {
	err = walk(r, keys.RangeLeaseSpan(id, from), func(it engine.Iterator) (more bool, err error) {
		lease, _, ok := keys.LeaseOf(it.Key())
		if !ok {
			return false, &base.Corruption{Where: keys.Pretty(it.Key()), Cause: errNoLease}
		}
		if len(leases) >= limit {
			next = lease
			return false, nil
		}
		raw, err := it.Value()
		if err != nil {
			return false, err
		}
		rec := &kvpb.LeaseRecord{}
		if err := decodeState(it.Key(), raw, rec); err != nil {
			return false, err
		}
		if rec.Id != lease {
			return false, &base.Corruption{Where: keys.Pretty(it.Key()), Cause: fmt.Errorf("it is that of %x", uint64(rec.Id))}
		}
		leases = append(leases, rec)
		return true, nil
	})
	return leases, next, err
}

var errNoLease = errors.New("it is the key of no lease")

// ReadLeaseKeys reads up to limit of a range's keys that a lease holds, in their order, from one on. next is where the following page
// begins; nil: there is none.
func ReadLeaseKeys(r engine.Reader, id base.RangeID, lease int64, from []byte, limit int) (held [][]byte, next []byte, err error) {
	err = walk(r, keys.RangeLeaseKeySpan(id, lease, from), func(it engine.Iterator) (more bool, err error) {
		_, key, _ := keys.LeaseOf(it.Key())
		if len(held) >= limit {
			next = bytes.Clone(key)
			return false, nil
		}
		held = append(held, bytes.Clone(key))
		return true, nil
	})
	return held, next, err
}

// walk calls visit for each pair of a span, in order, as long as it wants more.
func walk(r engine.Reader, span engine.Span, visit func(engine.Iterator) (more bool, err error)) error {
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return err
	}
	for more := it.First(); more && err == nil; more = more && it.Next() {
		more, err = visit(it)
	}
	if err == nil {
		err = it.Error()
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return err
}
