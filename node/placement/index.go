package placement

import (
	"sync"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
)

// index follows what an index range lists, from the replica that is here: all of it once, in pages, and from then on what changes.
// What was told while it was read is taken in after it: an entry that is older than what is known changes nothing.
type index struct {
	id   base.RangeID
	keys map[string]base.RangeID // which range each entry is of
	of   map[base.RangeID]int    // and how many are of a range: for a moment it may have two, after it was cut

	mu      sync.Mutex
	news    []apply.Indexed
	all     bool // any entry may be another: it is read anew
	changed func()
}

func newIndex(id base.RangeID, changed func()) *index {
	return &index{id: id, all: true, changed: changed, keys: make(map[string]base.RangeID), of: make(map[base.RangeID]int)}
}

// tell takes note of what has changed. It does not block.
func (x *index) tell(news []apply.Indexed) {
	x.mu.Lock()
	for _, n := range news {
		if n.Key == nil || len(x.news) >= base.IndexNews {
			x.news, x.all = nil, true
			break
		}
		x.news = append(x.news, n)
	}
	x.mu.Unlock()
	x.changed()
}

// again has all of it read anew: the span of the index range is another.
func (x *index) again() { x.tell([]apply.Indexed{{}}) }

func (x *index) take() (news []apply.Indexed, all bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	news, all = x.news, x.all
	x.news, x.all = nil, false
	return news, all
}

// learner is told of ranges: a Decider.
type learner interface {
	Learn(*metapb.RangeDescriptor)
	Forget(base.RangeID)
}

// reader is the store's.
type reader interface {
	View(base.RangeID) *apply.View
	Read(base.RangeID, proto.Message, proto.Message) error
}

// follow tells a decider what has changed since the last time.
func (x *index) follow(s reader, to learner) error {
	news, all := x.take()
	if all {
		if err := x.read(s, to); err != nil {
			x.again()
			return err
		}
		return nil // what was told before it was read is in it, and what was told since comes with the next call
	}
	for _, n := range news {
		x.entry(to, string(n.Key), n.Descriptor)
	}
	return nil
}

// entry takes in one entry of the index; a nil descriptor: it is gone.
func (x *index) entry(to learner, key string, d *metapb.RangeDescriptor) {
	id, before := base.RangeID(d.GetRangeId()), x.keys[key]
	if d != nil {
		x.keys[key] = id
		x.of[id]++
		to.Learn(d)
	} else {
		delete(x.keys, key)
	}
	if before == 0 {
		return
	}
	if x.of[before]--; x.of[before] == 0 {
		delete(x.of, before)
		to.Forget(before)
	}
}

// read reads all entries, and forgets those that are there no more.
func (x *index) read(s reader, to learner) error {
	view := s.View(x.id)
	if view == nil {
		return &base.RangeMoved{Range: x.id}
	}
	start, end := view.Descriptor.Start, view.Descriptor.End
	if len(start) == 0 {
		start = []byte{0}
	}
	if len(end) == 0 {
		end = []byte{0} // to the end
	}
	seen := make(map[string]struct{}, len(x.keys))
	for {
		raw, err := proto.Marshal(&pb.RangeRequest{Key: start, RangeEnd: end})
		if err != nil {
			return err
		}
		page := &pb.RangeResponse{}
		if err := s.Read(x.id, &rangepb.PageRequest{Range: raw, MostBytes: base.PageBytes}, page); err != nil {
			return err
		}
		for _, kv := range page.Kvs {
			d, err := desc.Decode(kv.Value)
			if err != nil {
				return &base.Corruption{Where: "an entry of the index " + x.id.String(), Cause: err}
			}
			seen[string(kv.Key)] = struct{}{}
			x.entry(to, string(kv.Key), d)
		}
		if !page.More || len(page.Kvs) == 0 {
			break
		}
		start = append(page.Kvs[len(page.Kvs)-1].Key, 0)
	}
	for key := range x.keys {
		if _, ok := seen[key]; !ok {
			x.entry(to, key, nil)
		}
	}
	return nil
}
