package placement

import (
	"fmt"
	"maps"
	"time"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Room is what a node can say of itself when it is asked to take a replica.
type Room struct {
	// Against says why it takes none at all, such as that it is cordoned, or was fenced; empty: it does.
	Against string
	// Moves is how many replicas may come in at once, by the policy (Policies); 0: one.
	Moves int
	// Snapshots is how many it takes in now that nobody has reserved.
	Snapshots int
	// DiskBytes is what its disk holds, DiskUsed what of that is taken; 0: not known.
	DiskBytes, DiskUsed int64
}

// Reservations are the replicas that a node has promised to take: what makes several deciders safe together, which know nothing of
// each other. A promise that is not renewed ends by itself. Nothing is stored: a node that was started again has promised nothing.
//
// What the range lacks (urgent) goes before what is for balance: as long as something urgent was refused and is still asked for,
// nothing else is granted.
type Reservations struct {
	held   map[reservation]holding
	turned map[reservation]base.Instant // urgent ones that were refused, and until when they are waited for
}

type reservation struct {
	decider uint64
	id      base.RangeID
}

type holding struct {
	seq    uint64
	bytes  int64
	until  base.Instant
	urgent bool
}

// NewReservations returns an empty set.
func NewReservations() *Reservations {
	return &Reservations{held: make(map[reservation]holding), turned: make(map[reservation]base.Instant)}
}

// Reserve answers one request.
func (r *Reservations) Reserve(m *rangepb.Reserve, room Room, now base.Instant) *rangepb.Reservation {
	r.expire(now)
	key := reservation{m.Decider, base.RangeID(m.RangeId)}
	have, renewed := r.held[key]
	switch {
	case renewed && have.seq > m.Seq:
		return refuse("a newer decision of the same decider holds the place")
	case m.Release:
		delete(r.held, key)
		delete(r.turned, key)
		return &rangepb.Reservation{}
	}
	delete(r.held, key)
	why := r.against(key.id, int64(m.Bytes), m.Urgent, renewed, room)
	switch {
	case why == "":
		delete(r.turned, key)
		r.held[key] = holding{seq: m.Seq, bytes: int64(m.Bytes), until: now.Add(micros(m.TimeoutMicros)), urgent: m.Urgent}
		return &rangepb.Reservation{Granted: true}
	case m.Urgent && len(r.turned) < base.ReservationsPerNode:
		r.turned[key] = now.Add(3 * base.DecideRetry) // twice as long as until it is asked for again, and the way
	}
	return refuse(why)
}

// against says why another replica is not taken; empty: it is. A promise that is renewed is not taken back for others' sake.
func (r *Reservations) against(id base.RangeID, bytes int64, urgent, renewed bool, room Room) string {
	coming, load, ranges := bytes, share(bytes), map[base.RangeID]bool{}
	for k, h := range r.held {
		if k.id != id && !ranges[k.id] {
			coming += h.bytes
			load += share(h.bytes)
			ranges[k.id] = true
		}
	}
	limit := max(room.Moves, 1)
	switch n := len(ranges) + room.Snapshots; {
	case room.Against != "":
		return room.Against
	case renewed:
		return ""
	case load+room.Snapshots*base.ReserveSmallShare > limit*base.ReserveSmallShare:
		return fmt.Sprintf("takes in %d replicas already, and may take %d", n, limit)
	case room.DiskBytes > 0 && room.DiskUsed+coming > room.DiskBytes/1000*base.ReserveDiskPermille:
		return fmt.Sprintf("would have a full disk: %d MiB of %d are used, and %d come in", room.DiskUsed>>20, room.DiskBytes>>20, coming>>20)
	case !urgent && len(r.turned) > 0:
		return "ranges that lack a replica go first"
	}
	return ""
}

// share is how much of a place a replica takes. One that holds next to nothing is there in milliseconds, and those of a new cluster are
// to be so together.
func share(bytes int64) int {
	if bytes < base.ReserveSmallBytes {
		return 1
	}
	return base.ReserveSmallShare
}

// Held is how many replicas are promised, of how many bytes together.
func (r *Reservations) Held(now base.Instant) (ranges int, bytes int64) {
	r.expire(now)
	ids := map[base.RangeID]bool{}
	for k, h := range r.held {
		if !ids[k.id] {
			ids[k.id] = true
			bytes += h.bytes
		}
	}
	return len(ids), bytes
}

// Promised says whether a replica of the range may come here: somebody has reserved it.
func (r *Reservations) Promised(id base.RangeID, now base.Instant) bool {
	r.expire(now)
	for k := range r.held {
		if k.id == id {
			return true
		}
	}
	return false
}

func (r *Reservations) expire(now base.Instant) {
	maps.DeleteFunc(r.held, func(_ reservation, h holding) bool { return now >= h.until })
	maps.DeleteFunc(r.turned, func(_ reservation, until base.Instant) bool { return now >= until })
}

func refuse(why string) *rangepb.Reservation {
	return &rangepb.Reservation{Refused: why, RetryAfterMicros: uint64(base.DecideRetry / time.Microsecond)}
}

func micros(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
}
