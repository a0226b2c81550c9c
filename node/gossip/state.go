package gossip

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// state is what one node has heard, and what it says next. It is stepped: no clock, no I/O, no randomness but what it was given.
type state struct {
	self    base.NodeID
	own     *rangepb.GossipEntry
	entries map[base.NodeID]*rangepb.GossipEntry // with own
	gone    map[base.NodeID]bool                 // nodes that can never come back: nothing of them is kept or taken
	news    map[base.NodeID]int                  // how many more frames are to carry the entry unasked
	urgent  int                                  // how many more frames are not to wait: somebody is new, or has moved or changed
	page    base.NodeID                          // where the next digest begins, if not all fit
	sum     uint64                               // over the versions of entries
}

func newState(self base.NodeID, inc base.Incarnation) *state {
	s := &state{
		self: self, entries: make(map[base.NodeID]*rangepb.GossipEntry), gone: make(map[base.NodeID]bool), news: make(map[base.NodeID]int),
		own: &rangepb.GossipEntry{Version: &rangepb.GossipVersion{NodeId: uint64(self), Incarnation: uint64(inc)}},
	}
	return s
}

// say changes what this node says of itself. An entry that was handed out is never changed: it may be on its way.
func (s *state) say(change func(*rangepb.GossipEntry)) {
	e := proto.CloneOf(s.own)
	change(e)
	if s.entries[s.self] != nil && proto.Equal(e, s.own) {
		return
	}
	e.Version.Seq++
	s.own = e
	s.put(e)
}

// put takes an entry that is newer than what is known of its node; others are to hear of it.
func (s *state) put(e *rangepb.GossipEntry) {
	id := base.NodeID(e.Version.NodeId)
	old := s.entries[id]
	if old != nil {
		s.sum ^= digest(old.Version)
	}
	s.entries[id] = e
	s.sum ^= digest(e.Version)
	// Each who hears it tells as many: a rumour reaches nearly all, and the sums the rest.
	s.news[id] = 1 + bits.Len(uint(len(s.entries)))
	if old == nil || old.Address != e.Address || old.Binary != e.Binary || !proto.Equal(old.Record, e.Record) {
		s.urgent = s.news[id]
	}
}

// forget drops a node that can never come back.
func (s *state) forget(id base.NodeID) {
	if id == s.self || s.gone[id] {
		return
	}
	s.gone[id] = true
	if e := s.entries[id]; e != nil {
		s.sum ^= digest(e.Version)
		delete(s.entries, id)
		delete(s.news, id)
	}
}

// open is what begins an exchange; told is to be called if it was sent. One that is in a hurry carries news alone: everybody's sum
// is another then.
func (s *state) open(hurry bool) *rangepb.Gossip {
	g := &rangepb.Gossip{}
	if !hurry {
		g.Sum = s.sum
	}
	s.urgent = max(0, s.urgent-1)
	size := 0
	for _, id := range slices.Sorted(maps.Keys(s.news)) {
		if !add(g, s.entries[id], &size) {
			break
		}
	}
	return g
}

// told takes note that what open returned is on its way.
func (s *state) told(g *rangepb.Gossip) {
	for _, e := range g.Entries {
		id := base.NodeID(e.Version.NodeId)
		if s.news[id]--; s.news[id] <= 0 {
			delete(s.news, id)
		}
	}
}

// receive takes a frame, and returns what is to be answered (nil: nothing) and which entries were news.
func (s *state) receive(g *rangepb.Gossip) (answer *rangepb.Gossip, news []*rangepb.GossipEntry) {
	for _, e := range g.Entries {
		if s.takes(e) {
			s.put(e)
			news = append(news, e)
		}
	}
	answer = &rangepb.Gossip{}
	size := 0
	s.compare(g, answer, &size)
	for _, id := range g.Wants {
		if e := s.entries[base.NodeID(id)]; e != nil && !add(answer, e, &size) {
			break
		}
	}
	if g.Sum != 0 && g.Sum != s.sum {
		s.describe(answer)
	}
	if len(answer.Entries)+len(answer.Wants) == 0 && answer.DigestTo == 0 {
		return nil, news
	}
	return answer, news
}

// takes says whether an entry is news. Of this node nobody else knows better.
func (s *state) takes(e *rangepb.GossipEntry) bool {
	id := base.NodeID(e.Version.NodeId)
	if id == s.self || s.gone[id] {
		return false
	}
	old := s.entries[id]
	if old == nil {
		return len(s.entries) < base.GossipNodes
	}
	return order(e.Version, old.Version) > 0
}

// compare answers a digest: what its sender lacks, and what is lacking here.
func (s *state) compare(g, answer *rangepb.Gossip, size *int) {
	if g.DigestTo == 0 {
		return
	}
	theirs := make(map[base.NodeID]*rangepb.GossipVersion, len(g.Digest))
	for _, v := range g.Digest {
		id := base.NodeID(v.NodeId)
		theirs[id] = v
		have := s.entries[id]
		if id != s.self && !s.gone[id] && (have == nil || order(v, have.Version) > 0) {
			answer.Wants = append(answer.Wants, v.NodeId)
		}
	}
	for _, id := range s.ids() {
		e := s.entries[id]
		if uint64(id) < g.DigestFrom || uint64(id) > g.DigestTo {
			continue
		}
		if v := theirs[id]; (v == nil || order(e.Version, v) > 0) && !add(answer, e, size) {
			return
		}
	}
}

// describe puts a digest of what is known here into a frame: of all nodes or, of more than fit, of some that follow each other,
// and of the next ones the next time.
func (s *state) describe(answer *rangepb.Gossip) {
	ids := s.ids()
	from, _ := slices.BinarySearch(ids, s.page)
	if from == len(ids) || len(ids) <= base.GossipDigest {
		from = 0
	}
	to := min(from+base.GossipDigest, len(ids))
	answer.DigestFrom, answer.DigestTo, s.page = 0, math.MaxUint64, 0
	if from > 0 {
		answer.DigestFrom = uint64(ids[from])
	}
	if to < len(ids) {
		answer.DigestTo, s.page = uint64(ids[to])-1, ids[to]
	}
	for _, id := range ids[from:to] {
		answer.Digest = append(answer.Digest, s.entries[id].Version)
	}
}

func (s *state) ids() []base.NodeID { return slices.Sorted(maps.Keys(s.entries)) }

// add puts an entry into a frame if there is room, and one always is.
func add(g *rangepb.Gossip, e *rangepb.GossipEntry, size *int) bool {
	n := proto.Size(e)
	if *size > 0 && *size+n > base.GossipFrameBytes {
		return false
	}
	*size += n
	g.Entries = append(g.Entries, e)
	return true
}

func order(a, b *rangepb.GossipVersion) int {
	return cmp.Or(cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Seq, b.Seq))
}

// digest is a number that nearly surely no other version has. The sum of a set of them tells two sets apart.
func digest(v *rangepb.GossipVersion) uint64 {
	r := base.NewRand(v.NodeId)
	r = base.NewRand(r.Uint64() ^ v.Incarnation)
	r = base.NewRand(r.Uint64() ^ v.Seq)
	return r.Uint64()
}

// loads is how busy each node was when it last said so.
func (s *state) loads() map[base.NodeID]*metapb.NodeLoad {
	out := make(map[base.NodeID]*metapb.NodeLoad, len(s.entries))
	for id, e := range s.entries {
		if e.Load != nil {
			out[id] = e.Load
		}
	}
	return out
}
