package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// bulkNet connects a sender's snapshot streams to a receiver. through sees each message of the sender's, may change it,
// and breaks the stream with an error.
type bulkNet struct {
	t       *testing.T
	from    base.NodeID
	to      *Store
	through func(stream int, m *rangepb.SnapshotMessage) error

	mu         sync.Mutex
	streams    int
	open, most uint64 // bytes of chunks that were sent and not acknowledged
	wg         sync.WaitGroup
}

var errBroken = errors.New("the stream broke")

func (b *bulkNet) Send(base.NodeID, transport.Class, []byte) error { return nil }
func (b *bulkNet) Peers() []transport.PeerStatus                   { return nil }
func (b *bulkNet) Close()                                          {}

func (b *bulkNet) OpenBulk(ctx context.Context, _ base.NodeID) (transport.BulkStream, error) {
	b.mu.Lock()
	b.streams++
	n := b.streams
	b.open = 0
	b.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	p := &pipe{up: make(chan []byte, 64), down: make(chan []byte, 64), ctx: ctx, cancel: cancel}
	b.wg.Go(func() {
		err := b.to.HandleSnapshot(ctx, b.from, receiving{p, b})
		if err == nil {
			err = io.EOF
		}
		p.cancel(err)
	})
	return sending{p, b, n}, nil
}

type pipe struct {
	up, down chan []byte
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

func (p *pipe) put(ch chan []byte, raw []byte) error {
	select {
	case ch <- bytes.Clone(raw):
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// get prefers what was sent to the news that the stream ended, as a stream does.
func (p *pipe) get(ch chan []byte) ([]byte, error) {
	select {
	case raw := <-ch:
		return raw, nil
	default:
	}
	select {
	case raw := <-ch:
		return raw, nil
	case <-p.ctx.Done():
		select {
		case raw := <-ch:
			return raw, nil
		default:
			return nil, context.Cause(p.ctx)
		}
	}
}

type sending struct {
	*pipe
	b *bulkNet
	n int
}

func (s sending) Send(raw []byte) error {
	m := &rangepb.SnapshotMessage{}
	must(s.b.t, proto.Unmarshal(raw, m))
	if err := s.b.through(s.n, m); err != nil {
		s.cancel(err)
		return err
	}
	s.b.mu.Lock()
	s.b.open += uint64(len(m.GetChunk().GetData()))
	s.b.most = max(s.b.most, s.b.open)
	s.b.mu.Unlock()
	return s.put(s.up, encode(s.b.t, m))
}
func (s sending) Recv() ([]byte, error) { return s.get(s.down) }
func (s sending) CloseSend() error      { return nil }

type receiving struct {
	*pipe
	b *bulkNet
}

func (r receiving) Send(raw []byte) error {
	m := &rangepb.SnapshotMessage{}
	must(r.b.t, proto.Unmarshal(raw, m))
	r.b.mu.Lock()
	r.b.open -= m.GetAck().GetCredits()
	r.b.mu.Unlock()
	return r.put(r.down, raw)
}
func (r receiving) Recv() ([]byte, error) { return r.get(r.up) }
func (r receiving) CloseSend() error      { return nil }

// snapshotPair is a leader with some megabytes, a follower to receive them, and the raft message for it.
func snapshotPair(t *testing.T, through func(int, *rangepb.SnapshotMessage) error) (*simNode, *simNode, raftgroup.Message, *bulkNet) {
	c, cl := quiet(t, mem)
	const id = base.RangeDefault
	l := c.leader(id)
	n := c.others(l)[0]
	for i := range 6 {
		cl.propose(l, id, &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(t, &pb.PutRequest{
			Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{byte(i + 1)}, 1<<20),
		})}}, func(_ proto.Message, err error) { must(t, err) })
		c.heal(50 * time.Millisecond)
	}
	v := l.s.View(id)
	m := raftgroup.Message{
		Range: id, FromNode: l.id, ToNode: n.id, FromReplica: base.ReplicaID(l.id), ToReplica: base.ReplicaID(n.id),
		Raft: &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(l.id)), To: new(uint64(n.id)), Term: new(v.AppliedTerm),
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(v.AppliedIndex), Term: new(v.AppliedTerm), ConfState: raftgroup.ConfState(v.Descriptor)}}},
	}
	b := &bulkNet{t: t, from: l.id, to: n.s, through: through}
	t.Cleanup(b.wg.Wait)
	l.s.transport = b
	return l, n, m, b
}

func TestSnapshotStream(t *testing.T) {
	chunks := 0
	for name, x := range map[string]struct {
		through func(stream int, m *rangepb.SnapshotMessage) error
		streams int
		again   bool // a file is received a second time
	}{
		"whole": {through: func(int, *rangepb.SnapshotMessage) error { return nil }, streams: 1},
		"broken twice": {streams: 3, through: func(stream int, m *rangepb.SnapshotMessage) error {
			if m.GetChunk() != nil {
				if chunks++; stream == 1 && chunks == 5 || stream == 2 && chunks == 12 {
					return errBroken
				}
			}
			return nil
		}},
		"broken at its end": {streams: 2, through: func(stream int, m *rangepb.SnapshotMessage) error {
			if m.GetDone() != nil && stream == 1 {
				return errBroken
			}
			return nil
		}},
		"a chunk damaged": {streams: 2, through: func(stream int, m *rangepb.SnapshotMessage) error {
			if m.GetChunk() != nil {
				if chunks++; chunks == 7 {
					m.GetChunk().Data[100] ^= 1
				}
			}
			return nil
		}},
		"a file damaged": {streams: 2, again: true, through: func(stream int, m *rangepb.SnapshotMessage) error {
			if c := m.GetChunk(); c != nil && stream == 1 {
				if chunks++; chunks == 3 {
					c.Data[100] ^= 1
					c.Checksum = xxhash.Sum64(c.Data)
				}
			}
			return nil
		}},
		"a chunk missing": {streams: 2, through: func(stream int, m *rangepb.SnapshotMessage) error {
			if c := m.GetChunk(); c != nil && stream == 1 {
				if chunks++; chunks == 3 {
					c.Offset += uint64(len(c.Data))
				}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			chunks = 0
			l, n, m, b := snapshotPair(t, x.through)
			p := &sendProgress{}
			l.s.snapshots.sending[sendKey{m.Range, m.ToReplica}] = p
			must(t, l.s.snapshots.sendOne(context.Background(), m, p))
			b.wg.Wait()
			in, out := n.s.SnapshotStats(), l.s.SnapshotStats()
			if len(n.s.snapshots.staged) != 1 {
				t.Fatalf("%d snapshots are staged", len(n.s.snapshots.staged))
			}
			var st *staged
			total := uint64(0)
			for _, st = range n.s.snapshots.staged {
				for _, f := range st.offer.Files {
					total += f.Size
				}
			}
			if total < 6<<20 || b.streams != x.streams || in.Resumed != uint64(x.streams-1) || in.Received != 1 {
				t.Errorf("%d bytes in %d streams, want %d streams: %+v", total, b.streams, x.streams, in)
			}
			if !x.again && in.BytesReceived != total {
				t.Errorf("%d of %d bytes were received: what was received is not sent again", in.BytesReceived, total)
			}
			if lost := uint64(x.streams-1) * base.SnapshotCreditBytes; !x.again && out.BytesSent > total+lost {
				t.Errorf("%d of %d bytes were sent: no more than was under way is sent again", out.BytesSent, total)
			}
			if sent, size := l.s.Sending(m.Range); sent != total || size != total {
				t.Errorf("%d of %d bytes are said to be sent, of %d", sent, size, total)
			}
			if held := n.s.Receiving(); len(held) != 1 || held[0] != m.Range {
				t.Errorf("%v are said to come in, want %s, which waits to be installed", held, m.Range)
			}
			if b.most > base.SnapshotCreditBytes {
				t.Errorf("%d bytes were under way, above the credits", b.most)
			}
			must(t, n.s.snapshots.verify(st))
			if _, err := l.eng.OpenFile(filepath.Join(l.eng.StagingDir(), "out-"+st.token, "000000.sst")); err == nil {
				t.Error("the sender's tables were left behind")
			}
			// The follower has all of it: Raft does not want it, and it is deleted.
			n.step()
			if _, err := n.eng.OpenFile(st.paths[0]); err == nil || len(n.s.snapshots.staged) != 0 || n.s.SnapshotStats().Installed != 0 {
				t.Errorf("a snapshot that nobody wants is kept: %v, %+v", err, n.s.SnapshotStats())
			}
		})
	}
}

// flushes counts the flushes of an engine.
type flushes struct {
	engine.Engine
	n int
}

func (f *flushes) Flush() error {
	f.n++
	return f.Engine.Flush()
}

// creations tells which files are made only to be read again.
type creations struct {
	engine.Engine
	scratch []bool
}

func (c *creations) CreateFile(path string) (engine.File, error) {
	c.scratch = append(c.scratch, false)
	return c.Engine.CreateFile(path)
}

func (c *creations) CreateScratch(path string) (engine.File, error) {
	c.scratch = append(c.scratch, true)
	return c.Engine.CreateScratch(path)
}

// The tables of a snapshot that is sent stay in the system's memory, but not those of a large one: what is beyond the bound goes to the
// disk on the way.
func TestExportBoundsItsMemory(t *testing.T) {
	eng := &creations{Engine: engine.NewMem()}
	e := exporter{eng: eng, dir: filepath.Join(eng.StagingDir(), "out")}
	const tables = base.SnapshotScratchBytes / base.SnapshotTableBytes
	for range tables + 2 {
		must(t, e.next())
	}
	must(t, e.finish())
	for i, scratch := range eng.scratch {
		if scratch != (i < tables) {
			t.Errorf("table %d: scratch is %v", i, scratch)
		}
	}
}

// Before a snapshot that was received is handed to the loop, what is in memory goes to tables: an ingestion over it would hold up all
// commits of the node.
func TestSnapshotIsIngestedOverTables(t *testing.T) {
	l, n, m, b := snapshotPair(t, func(int, *rangepb.SnapshotMessage) error { return nil })
	count := &flushes{Engine: n.s.eng}
	n.s.eng = count
	must(t, l.s.snapshots.sendOne(context.Background(), m, &sendProgress{}))
	b.wg.Wait()
	if in := n.s.SnapshotStats(); count.n != 1 || in.Received != 1 || in.Installed != 0 {
		t.Errorf("%d flushes before the installation: %+v", count.n, in)
	}
}

// A stream that never works ends after a bounded number of attempts; a cancelled one at once; a refused one with the first.
func TestSnapshotGivesUp(t *testing.T) {
	l, _, m, b := snapshotPair(t, func(int, *rangepb.SnapshotMessage) error { return nil })
	m.ToReplica, m.Raft.To = 99, new(uint64(99))
	err := l.s.snapshots.sendOne(context.Background(), m, &sendProgress{})
	if refused := (*refusedError)(nil); !errors.As(err, &refused) || b.streams != 1 || !strings.Contains(err.Error(), "replica 99") {
		t.Errorf("%v after %d streams", err, b.streams)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.through = func(int, *rangepb.SnapshotMessage) error { cancel(); return errBroken }
	if err := l.s.snapshots.sendOne(ctx, m, &sendProgress{}); err == nil || b.streams != 2 {
		t.Errorf("%v after %d streams", err, b.streams)
	}
	m.Raft.Snapshot.Metadata.Index = new(uint64(1 << 40))
	if err := l.s.snapshots.sendOne(context.Background(), m, &sendProgress{}); err == nil || b.streams != 2 {
		t.Errorf("a state that is not there was sent: %v", err)
	}
}

func goodOffer(t testing.TB, n *simNode) *rangepb.SnapshotOffer {
	d := n.s.View(base.RangeDefault).Descriptor
	return &rangepb.SnapshotOffer{
		Token: []byte("1-4-1"), RangeId: uint64(base.RangeDefault), FromReplica: 2, ToReplica: uint64(n.id),
		Range: proto.CloneOf(d), Files: []*rangepb.SnapshotFile{{Size: 10, Checksum: 1}},
		Raft: encode(t, &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(n.id)), Term: new(uint64(6)),
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(6)), ConfState: raftgroup.ConfState(d)}}}),
	}
}

func TestSnapshotOfferRefused(t *testing.T) {
	n := newSimCluster(t, 1, mem).nodes[0]
	if _, err := n.s.checkOffer(2, goodOffer(t, n)); err != nil {
		t.Fatal(err)
	}
	raft := func(o *rangepb.SnapshotOffer, f func(*raftpb.Message)) {
		m := &raftpb.Message{}
		must(t, proto.Unmarshal(o.Raft, m))
		f(m)
		o.Raft = encode(t, m)
	}
	for name, spoil := range map[string]func(*rangepb.SnapshotOffer){
		"no raft message": func(o *rangepb.SnapshotOffer) { o.Raft = nil },
		"garbage":         func(o *rangepb.SnapshotOffer) { o.Raft = []byte{0xff} },
		"not a snapshot":  func(o *rangepb.SnapshotOffer) { raft(o, func(m *raftpb.Message) { m.Type = raftpb.MsgApp.Enum() }) },
		"another sender":  func(o *rangepb.SnapshotOffer) { o.FromReplica = 3 },
		"index of the future of nothing": func(o *rangepb.SnapshotOffer) {
			raft(o, func(m *raftpb.Message) { m.Snapshot.Metadata.Index = new(uint64(3)) })
		},
		"no configuration": func(o *rangepb.SnapshotOffer) {
			raft(o, func(m *raftpb.Message) { m.Snapshot.Metadata.ConfState = nil })
		},
		"another configuration": func(o *rangepb.SnapshotOffer) {
			raft(o, func(m *raftpb.Message) { m.Snapshot.Metadata.ConfState.Voters = []uint64{1, 2} })
		},
		"no descriptor":        func(o *rangepb.SnapshotOffer) { o.Range = nil },
		"an empty span":        func(o *rangepb.SnapshotOffer) { o.Range.Start, o.Range.End = []byte("b"), []byte("a") },
		"another's descriptor": func(o *rangepb.SnapshotOffer) { o.Range.RangeId = 9 },
		"another's keys":       func(o *rangepb.SnapshotOffer) { o.Range.KeyspaceId = uint64(base.KeyspaceSys) },
		"another node's":       func(o *rangepb.SnapshotOffer) { o.Range.Replicas[0].NodeId = 44 },
		"no token":             func(o *rangepb.SnapshotOffer) { o.Token = nil },
		"a path":               func(o *rangepb.SnapshotOffer) { o.Token = []byte("../x") },
		"a long token":         func(o *rangepb.SnapshotOffer) { o.Token = bytes.Repeat([]byte("a"), 65) },
		"no files":             func(o *rangepb.SnapshotOffer) { o.Files = nil },
		"an empty file":        func(o *rangepb.SnapshotOffer) { o.Files = append(o.Files, &rangepb.SnapshotFile{}) },
		"too many files": func(o *rangepb.SnapshotOffer) {
			o.Files = make([]*rangepb.SnapshotFile, base.SnapshotMaxFiles+1)
			for i := range o.Files {
				o.Files[i] = &rangepb.SnapshotFile{Size: 1}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := goodOffer(t, n)
			spoil(o)
			s := &scriptedStream{t: t}
			s.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Offer{Offer: o}})
			if err := n.s.HandleSnapshot(context.Background(), 2, s); err != nil {
				t.Fatal(err)
			}
			if len(s.sent) != 1 || s.sent[0].GetResume().GetRefused() == "" || len(n.s.snapshots.staged) != 0 {
				t.Errorf("taken: %v", s.sent)
			}
		})
	}
}

// Whatever a peer sends on a stream, nothing is handed to Raft but a snapshot that is whole, and nothing panics.
func FuzzSnapshotStream(f *testing.F) {
	eng := newSimCluster(f, 1, mem)
	n := eng.nodes[0]
	f.Add(encode(f, goodOffer(f, n)), encode(f, &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Chunk{
		Chunk: &rangepb.SnapshotChunk{Data: []byte("0123456789"), Checksum: xxhash.Sum64([]byte("0123456789"))},
	}}))
	f.Add([]byte{}, []byte{0xff})
	f.Fuzz(func(t *testing.T, rawOffer, raw []byte) {
		o := &rangepb.SnapshotOffer{}
		if proto.Unmarshal(rawOffer, o) != nil {
			return
		}
		s := &scriptedStream{t: t}
		s.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Offer{Offer: o}})
		s.in = append(s.in, raw)
		s.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Done{Done: &rangepb.SnapshotDone{}}})
		before := n.s.SnapshotStats().Received
		err := n.s.HandleSnapshot(context.Background(), 2, s)
		whole := n.s.SnapshotStats().Received > before
		if whole && err != nil {
			t.Fatalf("received with %v", err)
		}
		for token, st := range n.s.snapshots.staged {
			if st.busy && !whole {
				t.Fatal("a broken stream holds on to its snapshot")
			}
			n.s.snapshots.drop(token)
		}
	})
}

// All snapshots of a node together are sent at its rate: here what the limiter has at first, and nothing after that.
func TestSnapshotRate(t *testing.T) {
	l, _, m, b := snapshotPair(t, func(int, *rangepb.SnapshotMessage) error { return nil })
	const burst = 2 << 20
	l.s.snapshots.rate = rate.NewLimiter(0, burst)
	dir := filepath.Join(l.eng.StagingDir(), "out-test")
	offer, files, err := l.s.snapshots.prepare(m, "test", dir)
	must(t, err)
	defer closeAll(files)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = l.s.snapshots.stream(ctx, m.ToNode, offer, files, &sendProgress{})
	b.wg.Wait()
	if sent := l.s.SnapshotStats().BytesSent; err == nil || sent > burst || sent+base.SnapshotChunkBytes <= burst {
		t.Errorf("%d bytes were sent, %v", sent, err)
	}
}
