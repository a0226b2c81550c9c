package apply

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
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/desc"
)

// The commands of leases of clients (RFC 6; kv/eval/lease.go has what is stored). A lease is granted, attached and revoked in the log of its
// home, and admitted and evicted in that of the range that is to hold keys of it. What keeps a key from outliving its lease is the order of
// three things: a range's ticket, then the attachment, by which the home knows of the range, and then the admission, which the range refuses
// if it was told since the ticket to evict the lease.

// LeaseChange is a lease of the range as a command has left it; Gone: it was revoked.
type LeaseChange struct {
	Lease *kvpb.LeaseRecord
	Gone  bool
}

var errNoLeases = errors.New("Cairn's own keyspaces take no leases")

// home finds a lease by the key of its home. A refusal: it does not live here, or there is none, or not that one.
func (p *pass) home(id, granted int64) (rec *kvpb.LeaseRecord, refusal, err error) {
	if !desc.Contains(p.desc, base.KeyspaceID(p.desc.KeyspaceId), eval.LeaseHome(id)) {
		return nil, p.moved(), nil
	}
	rec, err = eval.ReadLease(p.batch, p.id, id)
	if err != nil {
		return nil, nil, err
	}
	if rec == nil || granted != 0 && rec.GrantedRevision != granted {
		return nil, rpctypes.ErrGRPCLeaseNotFound, nil
	}
	return rec, nil, nil
}

// leaseGrant makes a lease. It takes no revision, as in etcd.
func (p *pass) leaseGrant(c *kvpb.LeaseGrant) (done, error) {
	switch {
	case base.KeyspaceID(p.desc.KeyspaceId) < base.KeyspaceDefault:
		return refused(errNoLeases)
	case c.GetId() == 0:
		return refused(rpctypes.ErrGRPCLeaseNotFound)
	case c.GetTtl() < 1:
		return refused(fmt.Errorf("a lease of %d seconds", c.Ttl))
	case c.Ttl > base.LeaseMaxTTL:
		return refused(rpctypes.ErrGRPCLeaseTTLTooLarge)
	}
	_, refusal, err := p.home(c.Id, 0)
	switch {
	case err != nil:
		return done{}, err
	case refusal == nil:
		return refused(rpctypes.ErrGRPCLeaseExist)
	case refusal != rpctypes.ErrGRPCLeaseNotFound:
		return refused(refusal)
	}
	p.grants++
	rec := &kvpb.LeaseRecord{Id: c.Id, Ttl: c.Ttl, GrantedRevision: p.grants}
	if err := p.setLease(rec); err != nil {
		return done{}, err
	}
	return done{response: &kvpb.LeaseGrantResponse{Lease: rec, Revision: int64(p.counters.Revision)}}, nil
}

// leaseRevoke ends a lease, or, where other ranges may hold keys of it, has it end.
func (p *pass) leaseRevoke(c *kvpb.LeaseRevoke, nowMicros int64) (done, error) {
	rec, refusal, err := p.home(c.GetId(), c.GetGrantedRevision())
	if rec == nil {
		return done{refusal: refusal}, err
	}
	evicted := rec.Ending && c.GrantedRevision == rec.GrantedRevision && sameSpans(rec.Spans, c.Evicted)
	if c.Begin || len(rec.Spans) > 0 && !evicted {
		if !rec.Ending {
			rec.Ending = true
			if err := p.setLease(rec); err != nil {
				return done{}, err
			}
		}
		return done{response: &kvpb.LeaseRevokeResponse{Revision: int64(p.counters.Revision), Lease: rec}}, nil
	}
	env := p.env(nowMicros, false)
	deleted, err := p.data.DeleteLeased(&env, c.Id)
	if err != nil {
		return done{}, err
	}
	p.counters = env.Counters
	if err := p.batch.Delete(keys.RangeLease(p.id, c.Id)); err != nil {
		return done{}, err
	}
	p.data.LeaseChanged(c.Id)
	p.out.Leases = append(p.out.Leases, LeaseChange{rec, true})
	return done{response: &kvpb.LeaseRevokeResponse{Revision: int64(p.counters.Revision), Lease: rec, Ended: true, Deleted: int64(deleted)}}, nil
}

// leaseAttach has the home know of a span where the lease may hold keys. A span stays as long as the lease: who was told that it is there
// may use it at any time.
func (p *pass) leaseAttach(c *kvpb.LeaseAttach) (done, error) {
	rec, refusal, err := p.home(c.GetId(), 0)
	switch {
	case rec == nil:
		return done{refusal: refusal}, err
	case rec.Ending:
		return refused(rpctypes.ErrGRPCLeaseNotFound)
	case c.Span == nil || len(c.Span.End) > 0 && bytes.Compare(c.Span.Start, c.Span.End) >= 0:
		return refused(fmt.Errorf("[%q, %q) is no span", c.GetSpan().GetStart(), c.GetSpan().GetEnd()))
	}
	spans := addSpan(rec.Spans, c.Span, base.LeaseSpans)
	if !sameSpans(rec.Spans, spans) {
		rec.Spans = spans
		if err := p.setLease(rec); err != nil {
			return done{}, err
		}
	}
	return done{response: &kvpb.LeaseAttachResponse{Lease: rec}}, nil
}

// leaseAdmit has the range take keys of a lease that lives in another one, where that one was told that it would: the range may be another
// by now, and hold more than what was attached.
func (p *pass) leaseAdmit(c *kvpb.LeaseAdmit) (done, error) {
	if !desc.Contains(p.desc, base.KeyspaceID(p.desc.KeyspaceId), c.GetKey()) {
		return refused(p.moved())
	}
	admitted, err := p.admit(c)
	return done{response: &kvpb.LeaseAdmitResponse{Admitted: admitted}}, err
}

func (p *pass) admit(c *kvpb.LeaseAdmit) (bool, error) {
	rec, err := eval.ReadLease(p.batch, p.id, c.Id)
	if err != nil || rec != nil { // a merge brought its home here
		return rec.GetGrantedRevision() == c.GrantedRevision && !rec.GetEnding(), err
	}
	evicted, err := p.evicted(leaseGroup(c.Id))
	if err != nil {
		return false, err
	}
	if c.Ticket > int64(p.counters.Revision) || evicted > base.Revision(c.Ticket) && !mutant.Is(mutant.LeaseAdmitIgnoresTicket) {
		return false, nil
	}
	guest, err := eval.ReadLeaseGuest(p.batch, p.id, c.Id)
	if err != nil {
		return false, err
	}
	if guest == nil {
		guest = &kvpb.LeaseGuest{GrantedRevision: c.GrantedRevision}
	}
	span := clipSpan(c.Span, p.desc.Start, p.desc.End)
	if guest.GrantedRevision != c.GrantedRevision || span == nil {
		return false, nil
	}
	spans := addSpan(guest.Spans, span, 0)
	if sameSpans(guest.Spans, spans) {
		return true, nil
	}
	guest.Spans = spans
	return true, p.setGuest(p.id, c.Id, guest)
}

// leaseEvict deletes the keys of a lease that is ending, and has the range take no more of them. It takes a revision in any case, so
// that every ticket of before is lower and every one that follows is not. One that comes so late that its lease has ended long ago, and that
// another one of its id is here, does nothing.
func (p *pass) leaseEvict(c *kvpb.LeaseEvict, nowMicros int64) (done, error) {
	ks := base.KeyspaceID(p.desc.KeyspaceId)
	switch {
	case !desc.Contains(p.desc, ks, c.GetKey()):
		return refused(p.moved())
	case ks.Single():
		return refused(fmt.Errorf("%s is one range, where every lease lives", ks))
	}
	resp := &kvpb.LeaseEvictResponse{Span: &kvpb.LeaseSpan{Start: p.desc.Start, End: p.desc.End}}
	rec, err := eval.ReadLease(p.batch, p.id, c.Id)
	if err != nil {
		return done{}, err
	}
	guest, err := eval.ReadLeaseGuest(p.batch, p.id, c.Id)
	if err != nil {
		return done{}, err
	}
	late := rec != nil && (rec.GrantedRevision != c.GrantedRevision || !rec.Ending) || guest != nil && guest.GrantedRevision != c.GrantedRevision
	if !late {
		if resp.Deleted, err = p.evict(c.Id, nowMicros); err != nil {
			return done{}, err
		}
	}
	resp.Revision = int64(p.counters.Revision)
	return done{response: resp}, nil
}

func (p *pass) evict(id, nowMicros int64) (deleted int64, err error) {
	env := p.env(nowMicros, false)
	next := env.NextRevision()
	n, err := p.data.DeleteLeased(&env, id)
	if err != nil {
		return 0, err
	}
	p.counters.Revision = next // that of the deletions, if there were any
	if err := p.batch.Delete(keys.RangeLeaseGuest(p.id, id)); err != nil {
		return 0, err
	}
	p.data.LeaseChanged(id)
	return int64(n), p.batch.Set(keys.RangeLeaseEvicted(p.id, leaseGroup(id)), numberBytes(uint64(next)))
}

// leaseGroup spreads ids, which may be counted up or random, over the groups of which the latest eviction is remembered.
func leaseGroup(id int64) byte {
	const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio: neighbours come to lie far apart
	return byte(uint64(id) * golden >> 32 % base.LeaseEvictGroups)
}

// evicted is the revision of the latest eviction of a group's; 0: there was none.
func (p *pass) evicted(group byte) (base.Revision, error) {
	n, err := readNumber(p.batch, keys.RangeLeaseEvicted(p.id, group))
	return base.Revision(n), err
}

// setLease writes a lease of this range and tells of it.
func (p *pass) setLease(rec *kvpb.LeaseRecord) error {
	if err := writeLease(p.batch, p.id, rec); err != nil {
		return err
	}
	p.data.LeaseChanged(rec.Id)
	p.out.Leases = append(p.out.Leases, LeaseChange{Lease: rec})
	return nil
}

func writeLease(w engine.Writer, r base.RangeID, rec *kvpb.LeaseRecord) error {
	return setMessage(w, keys.RangeLease(r, rec.Id), rec)
}

func (p *pass) setGuest(r base.RangeID, id int64, guest *kvpb.LeaseGuest) error {
	p.data.LeaseChanged(id)
	return setMessage(p.batch, keys.RangeLeaseGuest(r, id), guest)
}

func setMessage(w engine.Writer, key []byte, m proto.Message) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("%s: %w", keys.Pretty(key), err)
	}
	return w.Set(key, raw)
}

func numberBytes(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// readNumber reads a number that is 0 where it was never written.
func readNumber(r engine.Reader, key []byte) (uint64, error) {
	raw, err := r.Get(key)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(raw) != 8 || raw[0] >= 1<<7:
		return 0, corruptState(key, fmt.Errorf("%d bytes are no number", len(raw)))
	}
	return binary.BigEndian.Uint64(raw), nil
}
