package dispatch

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

const (
	propose = rangepb.RequestKind_REQUEST_KIND_PROPOSE
	read    = rangepb.RequestKind_REQUEST_KIND_READ
)

// A node that knows only the root finds any key in three hops, and then asks for nothing more.
func TestThreeHops(t *testing.T) {
	w := newWorld(t, 2)
	d := w.nodes[2]
	m, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
	must(t, err)
	if m.(*pb.PutResponse).Header.GetRevision() != 2 {
		t.Errorf("answered with %v", m)
	}
	if n := w.requests(read); n != 2 {
		t.Errorf("%d reads of the index, want one of root and one of meta", n)
	}
	if v := get(t, w, d, "a"); v != "1" {
		t.Errorf("read %q", v)
	}
	resp, err := d.ReadTxn(w.ctx(), base.KeyspaceDefault, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}}}})
	if err != nil || !resp.Succeeded || string(resp.Responses[0].GetResponseRange().Kvs[0].Value) != "1" {
		t.Errorf("%v, %v", resp, err)
	}
	if r, p := w.requests(read), w.requests(propose); r != 3 || p != 1 {
		t.Errorf("%d reads and %d proposals were sent", r, p)
	}
	if root, err := d.Root(w.ctx()); err != nil || root.RangeId != uint64(base.RangeRoot) {
		t.Errorf("root: %v, %v", root, err)
	}
}

// wrong is a descriptor of the default keyspace on other nodes.
func wrong(generation uint64, nodes ...uint64) *metapb.RangeDescriptor {
	d := store.FirstDescriptors(1)[3]
	d.Generation, d.Replicas, d.NextReplicaId = generation, nil, 10
	for i, n := range nodes {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}

// A stale descriptor heals: who is asked in vain says so, and the index is asked again.
func TestRangeMovedHeals(t *testing.T) {
	w := newWorld(t, 3)
	d := w.nodes[2]
	d.Learn(wrong(1, 3))
	if _, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1")); err != nil {
		t.Fatal(err)
	}
	d.Learn(wrong(9, 3)) // newer than what the index holds: dropped all the same, for it proves wrong
	if v := get(t, w, d, "a"); v != "1" {
		t.Errorf("read %q", v)
	}
}

// A node that has no replica of a range, but has heard of it, as of one that was cut off another a moment ago, does not say that
// the request touches several: it is asked for elsewhere.
func TestHearsayIsNoRefusal(t *testing.T) {
	w := newWorld(t, 3)
	w.nodes[3].Learn(wrong(1, 3))
	w.nodes[2].Learn(wrong(1, 3))
	if _, err := w.nodes[2].Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1")); err != nil {
		t.Fatal(err)
	}
}

// What a range says of itself stays as it is in the cache when the next one is asked.
func TestDescriptorAfterASplit(t *testing.T) {
	w := newWorld(t, 2)
	before, err := w.nodes[2].Descriptor(w.ctx(), base.KeyspaceMeta, []byte("a"))
	must(t, err)
	split := &kvpb.Split{ExpectedGeneration: before.Generation, Key: []byte("k"), RightRangeId: 100}
	m, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceMeta, []byte("a"), &kvpb.Command{Body: &kvpb.Command_Split{Split: split}})
	must(t, err)
	parts := m.(*kvpb.SplitResponse)
	for _, d := range []*metapb.RangeDescriptor{parts.Right, parts.Left} {
		key := route.DescriptorKey(d)
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceRoot, key, &kvpb.Command{Body: &kvpb.Command_PublishDescriptor{
			PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: d}}})
		must(t, err)
	}
	for _, key := range []string{"z", "a", "z"} {
		d, err := w.nodes[2].Descriptor(w.ctx(), base.KeyspaceMeta, []byte(key))
		must(t, err)
		if right := key == "z"; right != (d.RangeId == 100) {
			t.Errorf("%s is said to be in %v", key, d)
		}
	}
	if d := w.nodes[2].routes.find(base.KeyspaceMeta, []byte("a")); d.GetRangeId() != before.RangeId || string(d.GetEnd()) != "k" {
		t.Errorf("the cache has %v", d)
	}
}

// What certainly did not leave is tried elsewhere.
func TestNotSentIsTriedElsewhere(t *testing.T) {
	w := newWorld(t, 2)
	w.fails[3] = true
	d := w.nodes[2]
	d.Learn(wrong(2, 3, 1))
	if _, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1")); err != nil {
		t.Fatal(err)
	}
	d.Learn(wrong(3, 3, 4, 1))
	if v := get(t, w, d, "a"); v != "1" {
		t.Errorf("read %q", v)
	}
	if n := w.requests(propose); n != 1 {
		t.Errorf("%d proposals left", n)
	}
}

// A hint is followed once: a try that is lost on its way there drops it.
func TestRuleLostTryDropsTheHint(t *testing.T) {
	w := newWorld(t, 2)
	d := w.nodes[2]
	d.Learn(wrong(2, 1))
	var asked []base.NodeID
	err := d.retry(w.ctx(), base.KeyspaceDefault, []byte("a"), func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		asked = append(asked, node)
		switch len(asked) {
		case 1:
			return &base.NotLeader{Range: 4, HintNode: 7}
		case 2:
			return d.ask(w.ctx(), node, base.RangeID(desc.RangeId), read, nil, &pb.RangeResponse{}) // node 7 cannot be reached
		}
		return nil
	})
	if err != nil || len(asked) != 3 || asked[1] != 7 || asked[2] != 1 {
		t.Errorf("asked %v, %v", asked, err)
	}
}

// A write that left and was not answered is ambiguous, and never sent again; a read is.
func TestRuleAmbiguousIsNotRetried(t *testing.T) {
	for name, end := range map[string]func(w *world, d *Dispatcher, cancel context.CancelFunc){
		"peer down": func(_ *world, d *Dispatcher, _ context.CancelFunc) { d.PeerDown(1, errors.New("it is gone")) },
		"cancelled": func(_ *world, _ *Dispatcher, cancel context.CancelFunc) { cancel() },
		"stopped":   func(_ *world, d *Dispatcher, _ context.CancelFunc) { d.Stop() },
		"answered with nonsense": func(w *world, d *Dispatcher, _ context.CancelFunc) {
			w.mu.Lock()
			id := w.sent[len(w.sent)-1].Id
			w.mu.Unlock()
			must(w.t, d.HandleControl(1, encode(w.t, &rangepb.ControlFrame{Responses: &rangepb.ResponseFrame{
				Responses: []*rangepb.Response{{Id: id, Body: []byte{0xff}}}}})))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			d := w.nodes[2]
			d.Learn(store.FirstDescriptors(1)...)
			w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool { return f.Requests != nil })
			ctx, cancel := context.WithCancel(w.ctx())
			defer cancel()
			got := make(chan error)
			go func() {
				_, err := d.Propose(ctx, base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
				got <- err
			}()
			<-w.lost
			end(w, d, cancel)
			err := <-got
			if !errors.As(err, new(*base.Ambiguous)) {
				t.Errorf("ended with %v", err)
			}
			if n := w.requests(propose); n != 1 {
				t.Errorf("the write was sent %d times", n)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.pending) != 0 {
				t.Errorf("%d requests are still waited for", len(d.pending))
			}
		})
	}
}

// An answer is taken only from the node that was asked, and only by the process that asked.
func TestAnswersOfOthersAreNotTaken(t *testing.T) {
	w := newWorld(t, 2)
	d := w.nodes[2]
	d.Learn(store.FirstDescriptors(1)...)
	w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool { return f.Requests != nil })
	got := make(chan error)
	go func() {
		_, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
		got <- err
	}()
	<-w.lost
	w.mu.Lock()
	id := w.sent[len(w.sent)-1].Id
	w.mu.Unlock()
	answer := func(from base.NodeID, id uint64) {
		must(t, d.HandleControl(from, encode(t, &rangepb.ControlFrame{Responses: &rangepb.ResponseFrame{
			Responses: []*rangepb.Response{{Id: id, Body: encode(t, &pb.PutResponse{})}}}})))
	}
	answer(3, id)                 // from a node that was not asked
	answer(1, id&(1<<40-1))       // to a request of the process before
	answer(1, id&(1<<40-1)+2<<40) // and of one to come
	d.PeerDown(1, errors.New("it is gone"))
	if err := <-got; !errors.As(err, new(*base.Ambiguous)) {
		t.Errorf("the write ended with %v", err)
	}
}

func TestReadIsRetried(t *testing.T) {
	w := newWorld(t, 2)
	must2(w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1")))(t)
	d := w.nodes[2]
	d.Learn(store.FirstDescriptors(1)...)
	w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool { return f.Requests != nil })
	got := make(chan string)
	go func() { got <- get(t, w, d, "a") }()
	<-w.lost
	w.loseFrames(nil)
	d.PeerDown(1, errors.New("the stream broke"))
	if v := <-got; v != "1" {
		t.Errorf("read %q", v)
	}
	if n := w.requests(read); n != 2 {
		t.Errorf("the read was sent %d times", n)
	}
}

func must2(_ proto.Message, err error) func(testing.TB) {
	return func(t testing.TB) { t.Helper(); must(t, err) }
}

// asPeer has node 1 serve requests as if node 2 had sent them, and returns its answers in the order of their ids.
func asPeer(t testing.TB, w *world, qs ...*rangepb.Request) []*rangepb.Response {
	d2 := w.nodes[2]
	var chs []chan *rangepb.Response
	for i, q := range qs {
		q.Id = 1<<40 + uint64(i)
		q.TimeoutMicros = 5_000_000
		ch := make(chan *rangepb.Response, 1)
		chs = append(chs, ch)
		d2.mu.Lock()
		d2.pending[q.Id] = &remote{to: 1, id: base.RangeID(q.RangeId), ch: ch}
		d2.mu.Unlock()
	}
	must(t, w.nodes[1].HandleControl(2, encode(t, &rangepb.ControlFrame{Requests: &rangepb.RequestFrame{Requests: qs}})))
	var out []*rangepb.Response
	for _, ch := range chs {
		select {
		case r := <-ch:
			out = append(out, r)
		case <-w.ctx().Done():
			t.Fatal("no answer")
		}
	}
	return out
}

// Nothing that a replica could not read, or that must not come from elsewhere, is put into a log on behalf of a peer.
func TestPeersCommandsAreChecked(t *testing.T) {
	w := newWorld(t, 2)
	bad := []byte{0xff, 0xff}
	for name, body := range map[string][]byte{
		"garbage":       bad,
		"empty":         nil,
		"no body":       encode(t, &kvpb.Command{NowMicros: 3}),
		"newer kind":    {0xfa, 0x7f, 0x00}, // field 2047
		"bad put":       encode(t, &kvpb.Command{Body: &kvpb.Command_Put{Put: bad}}),
		"bad delete":    encode(t, &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: bad}}),
		"bad txn":       encode(t, &kvpb.Command{Body: &kvpb.Command_Txn{Txn: bad}}),
		"bad compact":   encode(t, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: bad}}),
		"change":        encode(t, &kvpb.Command{Body: &kvpb.Command_ChangeReplicas{ChangeReplicas: &kvpb.ChangeReplicas{ExpectedGeneration: 1}}}),
		"nested in txn": encode(t, &kvpb.Command{Body: &kvpb.Command_Txn{Txn: []byte{0x12, 0x02, 0x12, 0x05}}}),
	} {
		t.Run(name, func(t *testing.T) {
			before := w.nodes[1].cfg.Store.View(base.RangeDefault).AppliedIndex
			r := asPeer(t, w, &rangepb.Request{RangeId: uint64(base.RangeDefault), Kind: propose, Body: body})[0]
			if r.Error == nil || r.Error.Code != rangepb.ErrorCode_ERROR_CODE_REFUSED || codes.Code(r.Error.GrpcCode) != codes.InvalidArgument {
				t.Errorf("answered with %v", r)
			}
			if after := w.nodes[1].cfg.Store.View(base.RangeDefault).AppliedIndex; after != before {
				t.Errorf("the log went from %d to %d", before, after)
			}
		})
	}
	good := asPeer(t, w,
		&rangepb.Request{RangeId: uint64(base.RangeDefault), Kind: propose, Body: encode(t, putCommand(t, "a", "1"))},
		&rangepb.Request{RangeId: uint64(base.RangeDefault), Kind: read, Body: bad},
		&rangepb.Request{RangeId: uint64(base.RangeDefault), Kind: 77},
		&rangepb.Request{RangeId: 9999, Kind: propose, Body: encode(t, putCommand(t, "a", "1"))})
	if good[0].Error != nil {
		t.Errorf("a put was refused: %v", good[0].Error)
	}
	for i, want := range []rangepb.ErrorCode{rangepb.ErrorCode_ERROR_CODE_REFUSED, rangepb.ErrorCode_ERROR_CODE_REFUSED, rangepb.ErrorCode_ERROR_CODE_RANGE_MOVED} {
		if got := good[i+1].Error.GetCode(); got != want {
			t.Errorf("request %d: %s, want %s", i+1, got, want)
		}
	}
}

// A command of this node's own clients without a body is refused before it is routed.
func TestOwnCommandWithoutBody(t *testing.T) {
	w := newWorld(t, 1)
	if _, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, nil, &kvpb.Command{}); err == nil {
		t.Error("proposed")
	}
}

// A membership change is proposed on the leader, and its refusal comes back as what it is.
func TestProposeChangeStale(t *testing.T) {
	w := newWorld(t, 1)
	d := w.nodes[1]
	id := base.RangeDefault
	_, err := d.ProposeChange(w.ctx(), raftgroup.Proposal{Range: id, Data: encode(t, &kvpb.Command{Body: &kvpb.Command_ChangeReplicas{
		ChangeReplicas: &kvpb.ChangeReplicas{ExpectedGeneration: 5}}}), Change: conf()})
	var stale *base.StaleGeneration
	if !errors.As(err, &stale) || stale.Current.Generation != 1 {
		t.Errorf("%v", err)
	}
}

func FuzzHandleControl(f *testing.F) {
	w := newWorld(f, 2)
	d := w.nodes[1]
	f.Add(encode(f, &rangepb.ControlFrame{Requests: &rangepb.RequestFrame{Requests: []*rangepb.Request{
		{Id: 1, RangeId: 4, Kind: propose, Body: encode(f, putCommand(f, "a", "1")), TimeoutMicros: 1000},
		{Id: 2, RangeId: 4, Kind: read, Body: encode(f, &pb.RangeRequest{Key: []byte("a")})},
		{Id: 3, RangeId: 4, Kind: propose, Body: encode(f, &kvpb.Command{Body: &kvpb.Command_Txn{Txn: []byte{0x12, 0x02, 0x12, 0x00}}})},
	}}}))
	f.Add(encode(f, &rangepb.ControlFrame{Responses: &rangepb.ResponseFrame{Responses: []*rangepb.Response{{Id: 1, Error: &rangepb.Error{}}}}}))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d.HandleControl(2, raw) != nil {
			return
		}
		// The store still serves: nothing that came through stopped it (OnFatal fails the test).
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := d.Propose(ctx, base.KeyspaceDefault, []byte("z"), putCommand(t, "z", "1")); err != nil {
			t.Fatal(err)
		}
	})
}
