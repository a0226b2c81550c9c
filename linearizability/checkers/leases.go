package checkers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Leases holds the leases of a history, and the keys below a prefix that belong to them, against what a lease promises:
//
//   - a lease that was granted, or kept alive, at some time is there for its TTL from then on, by the driver's clock, unless somebody
//     ends it; and so are its keys, unless somebody deletes them;
//   - one that has ended does not come back, and takes no key;
//   - its keys end with it, or have by the time that its home says that it has ended. Where the keyspace has many ranges, the range of a key
//     may say sooner that it takes no more of them; the keys are gone within evictTime then.
//
// many: the keyspace has many ranges. A history without a clock says nothing of the first.
func Leases(prefix string, many bool) linearizability.Checker {
	return linearizability.Checker{Name: "leases", Check: func(h *linearizability.History) []linearizability.Violation {
		l := &leases{complaints: complaints{checker: "leases"}, prefix: prefix, many: many, byID: map[int64]*lease{}, keys: map[string][]*leased{}, erases: map[string][]*linearizability.Op{}}
		for _, op := range h.Ops {
			l.granted(op)
		}
		for _, op := range h.Ops {
			l.heard(op)
		}
		for _, op := range h.Ops {
			l.wrote(op)
		}
		for _, op := range answered(h) {
			l.shows(op)
		}
		for _, id := range slices.Sorted(maps.Keys(l.byID)) {
			l.lived(l.byID[id])
		}
		return l.found
	}}
}

const (
	// clockRate is by how much of a time the clock of a node may run faster than the driver's, in percent: what Cairn's own leases
	// allow, and what a driver's wants of a millisecond.
	clockRate = 6
	// evictTime is how long the keys of a lease in many ranges may outlive it when nothing is wrong.
	evictTime = 30 * time.Second
)

type leases struct {
	complaints
	prefix string
	many   bool
	byID   map[int64]*lease
	keys   map[string][]*leased             // by key
	erases map[string][]*linearizability.Op // which may have deleted a key
}

// lease is what is known of one.
type lease struct {
	id      int64
	granted *linearizability.Op
	alive   []*linearizability.Op // answers that it lives: its grant, keep-alives
	until   time.Duration         // it is to live until then, by what until was answered
	by      *linearizability.Op
	dead    []*linearizability.Op // answers that it has ended
	revokes []*linearizability.Op // which were not refused
}

// leased is one life of a key that belongs to a lease.
type leased struct {
	lease  *lease
	put    *linearizability.Op
	create int64
}

// granted takes in the leases that were granted for certain: of others nothing can be said.
func (l *leases) granted(op *linearizability.Op) {
	resp, ok := op.Response.(*pb.LeaseGrantResponse)
	if !ok || op.Outcome != linearizability.OK {
		return
	}
	if was := l.byID[resp.ID]; was != nil {
		l.add(fmt.Sprintf("lease %x is granted twice", resp.ID), was.granted, op)
		return
	}
	x := &lease{id: resp.ID, granted: op}
	l.byID[resp.ID] = x
	x.lives(op, resp.TTL)
}

// lives takes note that a lease was alive between an operation's beginning and its end, and has its TTL from there on.
func (x *lease) lives(op *linearizability.Op, ttl int64) {
	x.alive = append(x.alive, op)
	if until := op.Began + time.Duration(ttl)*time.Second*(100-clockRate)/100; op.Began > 0 && until > x.until {
		x.until, x.by = until, op
	}
}

// notFound is what etcd answers of a lease that is not there.
const notFound = "requested lease not found"

// heard takes in what an operation says of a lease.
func (l *leases) heard(op *linearizability.Op) {
	ok := op.Outcome == linearizability.OK
	refused := op.Outcome == linearizability.Failed && strings.Contains(op.Err, notFound)
	switch req := op.Request.(type) {
	case *pb.LeaseKeepAliveRequest:
		if ok {
			l.told(op, req.ID, op.Response.(*pb.LeaseKeepAliveResponse).TTL)
		} else if refused {
			l.told(op, req.ID, 0)
		}
	case *pb.LeaseTimeToLiveRequest:
		if ok && op.Response.(*pb.LeaseTimeToLiveResponse).TTL < 0 || refused {
			l.told(op, req.ID, 0)
		}
	case *pb.LeaseRevokeRequest:
		if refused {
			l.told(op, req.ID, 0)
		} else if x := l.byID[req.ID]; x != nil && op.Outcome != linearizability.Failed {
			x.revokes = append(x.revokes, op)
		}
	case *pb.TxnRequest:
		for _, o := range req.Success {
			if p := o.GetRequestPut(); p != nil && p.Lease != 0 && refused {
				l.told(op, p.Lease, 0)
			}
		}
	}
}

// told takes note of an answer: a TTL of 0 is that the lease has ended. Of one that was asked for before it was granted nothing can be
// said.
func (l *leases) told(op *linearizability.Op, id, ttl int64) {
	x := l.byID[id]
	switch {
	case x == nil || op.Invoked < x.granted.Returned:
	case ttl > 0:
		x.lives(op, ttl)
	default:
		x.dead = append(x.dead, op)
	}
}

// wrote takes in which keys an operation puts under leases, and which it may delete.
func (l *leases) wrote(op *linearizability.Op) {
	for _, w := range wouldWrite(op.Request) {
		if w.deleted && op.Outcome != linearizability.Failed {
			l.erases[w.key] = append(l.erases[w.key], op) // the workload deletes keys one by one
		}
	}
	t, ok := op.Request.(*pb.TxnRequest)
	if !ok || op.Outcome != linearizability.OK || !op.Response.(*pb.TxnResponse).Succeeded {
		return
	}
	for _, o := range t.Success {
		if p := o.GetRequestPut(); p != nil && l.byID[p.Lease] != nil {
			l.attached(op, p, l.byID[p.Lease])
		}
	}
}

// shows takes in what an operation shows of the keys.
func (l *leases) shows(op *linearizability.Op) {
	for _, r := range readsIn(op) {
		if strings.HasPrefix(string(r.req.Key), l.prefix) && !r.req.Serializable && r.req.Revision == 0 {
			l.shown(op, r)
		}
	}
}

func (l *leases) attached(op *linearizability.Op, p *pb.PutRequest, x *lease) {
	key := string(p.Key)
	l.keys[key] = append(l.keys[key], &leased{lease: x, put: op, create: revisionOf(op)})
	if dead := x.endedBefore(op, l.many); dead != nil {
		l.add(fmt.Sprintf("%q is put under lease %x, which had ended", key, x.id), dead, op)
	}
}

// endedBefore finds an answer that a lease had ended, and with it all of its keys, before an operation began. In a keyspace of many
// ranges that is what its home answers (RFC 6), but not a write that is refused or a key that is gone.
func (x *lease) endedBefore(op *linearizability.Op, many bool) *linearizability.Op {
	for _, r := range x.revokes {
		if r.Outcome == linearizability.OK && r.Returned < op.Invoked {
			return r
		}
	}
	for _, d := range x.dead {
		if d.Returned < op.Invoked && (!many || ofHome(d) || op.Final && d.Ended > 0 && d.Ended+evictTime < op.Began) {
			return d
		}
	}
	return nil
}

// ofHome says whether it was a lease's home that answered.
func ofHome(op *linearizability.Op) bool {
	switch op.Request.(type) {
	case *pb.LeaseKeepAliveRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseRevokeRequest:
		return true
	}
	return false
}

// shown takes in a read: of keys that outlive their lease, and of those that are gone before.
func (l *leases) shown(op *linearizability.Op, r readIn) {
	there := map[string]int64{}
	first := int64(0) // the lowest create revision that is there
	for _, kv := range r.resp.GetKvs() {
		there[string(kv.Key)] = kv.CreateRevision
		if first == 0 || kv.CreateRevision < first {
			first = kv.CreateRevision
		}
		if x := l.byID[kv.Lease]; x != nil {
			if dead := x.endedBefore(op, l.many); dead != nil {
				l.add(fmt.Sprintf("%q outlives lease %x", kv.Key, kv.Lease), dead, op)
			}
		}
	}
	begin, end := string(r.req.Key), spanEnd(r.req.Key, r.req.RangeEnd)
	for key, lives := range l.keys {
		if key < begin || end != "" && key >= end {
			continue
		}
		for _, k := range lives {
			hidden := r.resp.GetMore() && k.create > first // another came before it: only the first was asked for
			if k.put.Returned < op.Invoked && there[key] != k.create && !hidden {
				l.lost(k, key, op)
			}
		}
	}
}

// lost: a key is not there any more. If nobody deleted it, its lease has ended.
func (l *leases) lost(k *leased, key string, op *linearizability.Op) {
	for _, e := range l.erases[key] {
		if e.Invoked < op.Returned && ended(e) > k.put.Invoked {
			return
		}
	}
	if !slices.ContainsFunc(k.lease.dead, func(d *linearizability.Op) bool { return d.Ended <= op.Ended }) {
		k.lease.dead = append(k.lease.dead, op)
	}
}

// lived holds what was answered of a lease against its time.
func (l *leases) lived(x *lease) {
	for _, d := range x.dead {
		if slices.ContainsFunc(x.revokes, func(r *linearizability.Op) bool { return r.Invoked < d.Returned }) {
			continue
		}
		if d.Ended > 0 && d.Ended < x.until {
			l.add(fmt.Sprintf("lease %x has ended by %s, and was to live until %s at least", x.id, d.Ended, x.until), x.by, d)
			break
		}
	}
	for _, a := range x.alive {
		for _, d := range slices.Concat(x.dead, x.revokes) {
			if d.Outcome != linearizability.Unknown && d.Returned < a.Invoked {
				l.add(fmt.Sprintf("lease %x lives, and had ended", x.id), d, a)
				return
			}
		}
	}
}
