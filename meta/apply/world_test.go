package apply_test

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openEngine(t *testing.T) engine.Engine {
	t.Helper()
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, eng.Close()) })
	return eng
}

// replica is one range on one node, with its engine, as node/store would drive it.
type replica struct {
	eng  engine.Engine
	node base.NodeID
	sm   *apply.Replica
	out  apply.Result
}

func bootstrap(t fataler, eng engine.Engine, node base.NodeID, d *metapb.RangeDescriptor) *replica {
	t.Helper()
	b := eng.NewBatch()
	defer b.Close()
	must(t, apply.Bootstrap(b, d))
	must(t, b.CommitNoSync())
	r := &replica{eng: eng, node: node}
	r.load(t, base.RangeID(d.RangeId))
	return r
}

func (r *replica) load(t fataler, id base.RangeID) {
	t.Helper()
	sm, err := apply.Load(r.eng, id)
	must(t, err)
	if sm == nil {
		t.Fatalf("%s is not there", id)
	}
	r.sm = sm
}

var errDropped = errors.New("the batch was dropped")

// apply applies entries and commits, or, if asked to crash, drops the batch and loads again.
func (r *replica) apply(t fataler, crash bool, entries ...*raftpb.Entry) error {
	t.Helper()
	b := r.eng.NewIndexedBatch()
	defer b.Close()
	p := eval.NewPass(b)
	err := r.sm.Apply(p, entries, r.node, &r.out)
	must(t, p.Close())
	if err == nil && !crash {
		must(t, b.CommitNoSync())
		return nil
	}
	r.load(t, r.sm.ID())
	if err == nil {
		err = errDropped
	}
	return err
}

// entry is the log entry of a proposal. A membership change is carried by a conf change.
func entry(t fataler, index uint64, id raftgroup.ProposalID, cmd *kvpb.Command, change *raftpb.ConfChangeV2) *raftpb.Entry {
	t.Helper()
	raw, err := proto.Marshal(cmd)
	must(t, err)
	data, typ := raftgroup.EncodeProposal(id, raw), raftpb.EntryNormal
	if change != nil {
		change = proto.CloneOf(change)
		change.Context, typ = data, raftpb.EntryConfChangeV2
		data, err = proto.Marshal(change)
		must(t, err)
	}
	return rawEntry(index, typ, data)
}

func rawEntry(index uint64, typ raftpb.EntryType, data []byte) *raftpb.Entry {
	return &raftpb.Entry{Index: new(index), Term: new(uint64(apply.InitialTerm + 1)), Type: typ.Enum(), Data: data}
}

func put(t fataler, key, value string) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Put{Put: marshal(t, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})}}
}

func del(t fataler, key string) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_DeleteRange{DeleteRange: marshal(t, &pb.DeleteRangeRequest{Key: []byte(key)})}}
}

func compactTo(t fataler, rev int64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Compaction{Compaction: marshal(t, &pb.CompactionRequest{Revision: rev})}}
}

func marshal(t fataler, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// at returns the range as the engine shows it now, and its checksum.
func (r *replica) at(t fataler) (apply.View, uint64) {
	t.Helper()
	s := r.eng.NewSnapshot()
	defer s.Close()
	v, err := apply.ReadView(s, r.sm.ID())
	must(t, err)
	sum, err := apply.Checksum(s, &v)
	must(t, err)
	return v, sum
}
