package support

import (
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// Requester asks this node's peers for support and knows until when it certainly has it.
type Requester struct {
	cfg   Config
	rand  *base.Rand
	peers map[base.NodeID]*peer
	order []base.NodeID // of peers, ascending: what is sent must not rest on a map's order
	seq   uint64
	busy  bool
	late  base.Instant // until when support is asked for longer, because things ran late
	askAt base.Instant // all are asked at once: then they withdraw at once too, and elect without waiting for each other
	disk  base.Instant // when this node's disk last completed a synced write that began at or after that time
}

// peer is what is known of one supporter.
type peer struct {
	token  Token
	until  base.Instant  // the support under token, on this node's clock
	held   bool          // it had not run out when Lost was last asked
	trip   time.Duration // from the sending of a request to its answer, smoothed; 0: not known
	flying []flying      // requests without an answer, oldest first; at most maxFlying
}

type flying struct {
	seq      uint64
	sent     base.Instant
	duration time.Duration
}

// maxFlying bounds the requests that wait for an answer: older ones could not prolong anything any more.
const maxFlying = 16

// lateFor is how long a node asks for longer support after it asked late, or was answered late: a machine that has too much to
// do, or a network that is slow, would end promises that nobody meant to end, and the elections would make it worse.
const lateFor = 5 * time.Second

// Ask is a request to be sent to a node.
type Ask struct {
	To      base.NodeID
	Request Request
}

// NewRequester makes one without peers. The disk is taken to be well at now: the store was just opened with a sync.
func NewRequester(cfg Config, now base.Instant) (*Requester, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Requester{cfg: cfg, rand: base.NewRand(cfg.Seed), peers: make(map[base.NodeID]*peer), disk: now, askAt: now}, nil
}

// SetPeers says whom to ask: the nodes that share a range with this one. What is known of those that stay is kept.
func (r *Requester) SetPeers(now base.Instant, nodes []base.NodeID) {
	for id := range r.peers {
		if !slices.Contains(nodes, id) {
			delete(r.peers, id)
		}
	}
	for _, id := range nodes {
		if id != r.cfg.Self && r.peers[id] == nil {
			r.peers[id] = &peer{}
			r.askAt = min(r.askAt, now)
		}
	}
	r.order = r.order[:0]
	for id := range r.peers {
		r.order = append(r.order, id)
	}
	slices.Sort(r.order)
}

// Busy says whether this node leads a range that is in use. If it does now and did not before, it asks at once.
func (r *Requester) Busy(now base.Instant, busy bool) {
	if busy && !r.busy {
		r.askAt = min(r.askAt, now)
	}
	r.busy = busy
}

// Synced says that a synced write which began at began is on disk.
func (r *Requester) Synced(began base.Instant) { r.disk = max(r.disk, began) }

// DiskStale says whether the disk has completed nothing for so long that support is not asked for: a node that cannot
// write must not lead. The caller then makes a small synced write, and tells Synced.
func (r *Requester) DiskStale(now base.Instant) bool { return now.Sub(r.disk) >= r.diskLimit() }

// ProbeAt is when the disk should be written to if nothing else does: early enough that an idle disk is never stale.
func (r *Requester) ProbeAt() base.Instant { return r.disk.Add(r.diskLimit() / 2) }

func (r *Requester) diskLimit() time.Duration {
	if r.busy {
		return r.cfg.DiskLimit
	}
	return max(r.cfg.DiskLimit, r.cfg.IdleDuration)
}

// Due returns what is to be sent at now, and when to ask again. The slice is the caller's.
func (r *Requester) Due(now base.Instant) (asks []Ask, next base.Instant) {
	if len(r.order) == 0 {
		return nil, base.Never
	}
	if now < r.askAt {
		return nil, r.askAt
	}
	if now.Sub(r.askAt) > r.cfg.Interval/2 {
		r.late = now.Add(lateFor)
	}
	// Jittered, so that many nodes do not ask in step.
	interval, duration := r.cfg.Interval, r.cfg.Duration
	if now < r.late {
		duration = max(duration, r.cfg.IdleDuration)
	}
	if !r.busy {
		interval, duration = r.cfg.IdleInterval, r.cfg.IdleDuration
	}
	r.askAt = now.Add(interval - time.Duration(r.rand.Int63n(int64(interval/4)+1)))
	if r.DiskStale(now) && !mutant.Is(mutant.StalledDiskAsks) {
		r.askAt = now.Add(r.cfg.Interval / 4) // soon after it has completed something
		return nil, r.askAt
	}
	for _, id := range r.order {
		p := r.peers[id]
		r.seq++
		p.flying = append(p.flying, flying{r.seq, now, duration})
		if len(p.flying) > maxFlying {
			p.flying = slices.Delete(p.flying, 0, 1)
		}
		asks = append(asks, Ask{id, Request{r.cfg.Incarnation, r.seq, duration}})
	}
	return asks, r.askAt
}

// Answered takes an answer that came at now, and says whether it brought support where there was none, or under another
// token than before: what was fortified under that one no longer counts.
func (r *Requester) Answered(now base.Instant, from base.NodeID, a Answer) (fresh bool) {
	p := r.peers[from]
	if p == nil || a.Incarnation != r.cfg.Incarnation || a.Token.Less(p.token) {
		return false
	}
	i := slices.IndexFunc(p.flying, func(f flying) bool { return f.seq == a.Seq })
	if i < 0 {
		return false // never asked, or answered already, or too long ago to matter
	}
	f := p.flying[i]
	p.flying = slices.Delete(p.flying, i, i+1)
	if p.token.Less(a.Token) {
		p.token, p.until, p.held = a.Token, 0, false
	}
	if trip := now.Sub(f.sent); p.trip == 0 {
		p.trip = trip
	} else {
		p.trip += (trip - p.trip) / 8
	}
	if now.Sub(f.sent) > r.cfg.Duration/4 {
		r.late = now.Add(lateFor)
	}
	if mutant.Is(mutant.LeaseFromReceipt) {
		f.sent = now
	}
	p.until = max(p.until, f.sent.Add(relied(f.duration)))
	fresh = !p.held && p.until > now
	p.held = p.held || fresh
	return fresh
}

// Lost returns the nodes whose support has run out since it was last asked, and when the next one's will if nothing comes.
func (r *Requester) Lost(now base.Instant) (lost []base.NodeID, next base.Instant) {
	next = base.Never
	for _, id := range r.order {
		p := r.peers[id]
		switch {
		case p.held && p.until <= now:
			p.held = false
			lost = append(lost, id)
		case p.held:
			next = min(next, p.until)
		}
	}
	return lost, next
}

// relied is how long, on its own clock from the sending, a requester relies on a promise of d.
func relied(d time.Duration) time.Duration { return d / 1000 * (1000 - 2*MaxDrift) }

// RoundTrip is how long a request of this node's takes to be answered by a peer, lately; 0: not known.
func (r *Requester) RoundTrip(from base.NodeID) time.Duration {
	if p := r.peers[from]; p != nil {
		return p.trip
	}
	return 0
}

// Support returns the newest token of a peer and until when, on this node's clock, it certainly supports this node under
// that token. The zero token: it never did.
func (r *Requester) Support(from base.NodeID) (Token, base.Instant) {
	if p := r.peers[from]; p != nil {
		return p.token, p.until
	}
	return Token{}, 0
}
