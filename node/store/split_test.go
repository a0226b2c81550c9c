package store

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

const (
	leftRange  = base.RangeID(30)
	rightRange = base.RangeID(31)
	splitSpace = base.KeyspaceID(30)
)

// splitNode is a store that alone holds a range of a sharded keyspace. now goes on when it is turned.
type splitNode struct {
	t   *testing.T
	eng engine.Engine
	s   *Store
	h   *Hand
	l   *listener
	now base.Instant
}

func newSplitNode(t *testing.T, prepare func(engine.Writer)) *splitNode {
	return newSplitNodeOn(t, func(e engine.Engine) engine.Engine { return e }, prepare)
}

// newSplitNodeOn has the store see its engine through another.
func newSplitNodeOn(t *testing.T, through func(engine.Engine) engine.Engine, prepare func(engine.Writer)) *splitNode {
	n := &splitNode{t: t, eng: engine.NewMem(), l: listen(t), now: 1}
	b := n.eng.NewBatch()
	must(t, CreateReplica(b, desctest.First(leftRange, splitSpace), 1))
	prepare(b)
	must(t, b.CommitNoSync())
	var err error
	n.s, err = New(n.l.config(Config{Engine: through(n.eng), Node: 1, Incarnation: 1, Loops: 2, Clock: func() base.Instant { return n.now }}))
	must(t, err)
	n.l.s = n.s
	n.h, err = n.s.StartByHand(simTransport{})
	must(t, err)
	t.Cleanup(n.h.Stop)
	n.turn()
	n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})}})
	n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("x"), Value: []byte("2")})}})
	return n
}

func body(t *testing.T, m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// turn lets all happen that is due, and what follows from it.
func (n *splitNode) turn() {
	for range 50 {
		n.now = n.now.Add(time.Millisecond)
		_, err := n.h.Pass(nil)
		must(n.t, err)
		for _, y := range n.h.Syncs() {
			must(n.t, n.h.Synced(y))
		}
		n.h.Apply()
	}
}

func (n *splitNode) propose(id base.RangeID, cmd *kvpb.Command) (err error) {
	n.t.Helper()
	answered := false
	n.s.Propose(raftgroup.Proposal{Range: id, Data: body(n.t, cmd)}, base.Never, func(_ proto.Message, e error) { answered, err = true, e })
	n.turn()
	if !answered {
		n.t.Fatal("no answer")
	}
	return err
}

func (n *splitNode) split() {
	n.t.Helper()
	cmd, err := apply.Split(n.s.View(leftRange).Descriptor, []byte("m"), rightRange)
	must(n.t, err)
	must(n.t, n.propose(leftRange, cmd))
}

// holds lists the keys that a replica shows, false if there is none.
func (n *splitNode) holds(id base.RangeID) (found []string, ok bool) {
	v := n.s.View(id)
	if v == nil {
		return nil, false
	}
	req := &pb.RangeRequest{Key: []byte("\x00"), RangeEnd: []byte("\x00")}
	if len(v.Descriptor.Start) > 0 {
		req.Key = v.Descriptor.Start
	}
	if len(v.Descriptor.End) > 0 {
		req.RangeEnd = v.Descriptor.End
	}
	out := &pb.RangeResponse{}
	must(n.t, n.s.Read(id, req, out))
	for _, kv := range out.Kvs {
		found = append(found, string(kv.Key))
	}
	return found, true
}

// Both parts serve what they hold at once, and revisions go on.
func TestSplit(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	before := n.s.View(leftRange).Counters.Revision
	n.split()
	left, _ := n.holds(leftRange)
	right, ok := n.holds(rightRange)
	if !ok || len(left) != 1 || left[0] != "a" || len(right) != 1 || right[0] != "x" {
		t.Fatalf("%v and %v", left, right)
	}
	if st, _ := n.s.State(rightRange); st.Role != raftgroup.Leader || st.Term <= apply.InitialTerm {
		t.Errorf("the right part: %+v", st)
	}
	must(t, n.propose(rightRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("y")})}}))
	if now := n.s.View(rightRange).Counters.Revision; now <= before {
		t.Errorf("the right part is at revision %d, and the whole was at %d", now, before)
	}
	if err := n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("y")})}}); err == nil {
		t.Error("the left part takes a key of the right one")
	}
	// It starts again as it is, from a log that begins without a HardState too.
	again, err := New(Config{Engine: n.eng, Node: 1, Incarnation: 2, Loops: 2, Clock: func() base.Instant { return n.now }})
	must(t, err)
	h, err := again.StartByHand(simTransport{})
	must(t, err)
	defer h.Stop()
	if ids := again.Ranges(); len(ids) != 2 {
		t.Errorf("started with %v", ids)
	}
}

// What the store knows of the right part's replica before the split is applied here is kept: what it voted, and that it is dead.
func TestSplitMeetsWhatIsThere(t *testing.T) {
	vote := &raftpb.HardState{Term: new(uint64(9)), Vote: new(uint64(2)), Commit: new(uint64(0))}
	for _, c := range []struct {
		name    string
		prepare func(engine.Writer)
		alive   bool
		term    uint64
	}{
		{"nothing", func(engine.Writer) {}, true, 5},
		{"a vote", func(b engine.Writer) {
			must(t, b.Set(keys.RaftReplicaID(rightRange), uintBytes(nil, 1)))
			must(t, b.Set(keys.RaftHardState(rightRange), body(t, vote)))
		}, true, 9},
		{"a tombstone of earlier ones", func(b engine.Writer) { must(t, b.Set(keys.RaftTombstone(rightRange), uintBytes(nil, 1))) }, true, 5},
		{"its tombstone", func(b engine.Writer) { must(t, b.Set(keys.RaftTombstone(rightRange), uintBytes(nil, 2))) }, false, 0},
		{"a newer replica", func(b engine.Writer) { must(t, b.Set(keys.RaftReplicaID(rightRange), uintBytes(nil, 3))) }, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newSplitNode(t, c.prepare)
			n.s.cfg.OnFatal = func(err error) { t.Error(err) }
			right := raftgroup.Loaded{}
			stored := n.eng
			cmd, err := apply.Split(n.s.View(leftRange).Descriptor, []byte("m"), rightRange)
			must(t, err)
			must(t, n.propose(leftRange, cmd))
			found, ok := n.holds(rightRange)
			if ok != c.alive || ok && len(found) != 1 {
				t.Fatalf("alive %v, with %v", ok, found)
			}
			if left, _ := n.holds(leftRange); len(left) != 1 {
				t.Errorf("the left part holds %v", left)
			}
			if !c.alive {
				for _, s := range apply.Spans(&metapb.RangeDescriptor{RangeId: uint64(rightRange), KeyspaceId: uint64(splitSpace), Start: []byte("m")}) {
					it, err := stored.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
					must(t, err)
					if it.First() {
						t.Errorf("%s is left of a dead replica", keys.Pretty(it.Key()))
					}
					must(t, it.Close())
				}
				return
			}
			if right, err = (&logStore{eng: n.eng}).Load(rightRange); err != nil || right.HardState.GetTerm() < c.term || right.Applied < 10 {
				t.Errorf("%+v, %v", right, err)
			}
		})
	}
}

// A replica that is destroyed before its loop has heard of the split takes nothing of the right part with it.
func TestSplitThenDestroy(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	old := n.s.View(leftRange).Descriptor
	n.split()
	b := n.eng.NewBatch()
	a := &appender{eng: n.eng, hard: map[base.RangeID]termVote{}}
	_, err := a.write(b, []raftgroup.Append{{Range: leftRange, Destroy: 2, Descriptor: old}})
	must(t, err)
	must(t, b.CommitNoSync())
	if right, ok := n.holds(rightRange); !ok || len(right) != 1 {
		t.Errorf("the right part holds %v", right)
	}
}

// A snapshot of a range that was cut meanwhile replaces all that the replica held: nobody else will delete it.
func TestSplitHull(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	narrow := desctest.First(leftRange, splitSpace)
	narrow.End = []byte("m")
	span, err := n.s.hull(narrow, nil)
	must(t, err)
	if want := keys.DataSpan(splitSpace, nil, nil); string(span.Start) != string(want.Start) || string(span.End) != string(want.End) {
		t.Errorf("%x to %x is excised", span.Start, span.End)
	}
}

// Two snapshots of ranges with a key in common are not taken in beside each other, and none over a replica that holds keys of it.
func TestSplitSnapshotsDoNotOverlap(t *testing.T) {
	c, _ := quiet(t, mem)
	n := c.others(c.leader(base.RangeDefault))[0]
	offer := goodOffer(t, n)
	sn := n.s.snapshots
	st, err := sn.stage(offer)
	must(t, err)
	other := proto.CloneOf(offer)
	other.RangeId, other.Token = 99, []byte("another")
	other.Range.RangeId = 99
	if _, err := sn.stage(other); err == nil {
		t.Error("two ranges with the same keys are taken in")
	}
	sn.release(st)
	if _, err := sn.stage(other); err == nil {
		t.Error("a range is taken in over the replica of another")
	}
}
