package keyspace

import (
	"context"
	"encoding/binary"
	"fmt"
	"regexp"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// The records in `sys`.
const (
	recordPrefix    = "keyspace/"
	keyspaceCounter = "counter/keyspace"
	rangeCounter    = "counter/range"
)

func recordKey(name string) []byte { return []byte(recordPrefix + name) }

// validName is what a keyspace may be called: something that can stand in a flag, a URL and a file name.
var validName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return status.Errorf(codes.InvalidArgument, "%q cannot be a keyspace's name: give a small letter, and then at most 62 small letters, digits, - or _", name)
	}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		if ks.String() == name {
			return status.Errorf(codes.FailedPrecondition, "%s is a keyspace of every cluster's: it is neither made nor dropped", name)
		}
	}
	return nil
}

// stored is a record as it stands in sys.
type stored struct {
	*metapb.KeyspaceRecord
	revision int64
}

// read returns the record of a name; nil if there is none.
func (m *Manager) read(ctx context.Context, name string) (*stored, error) {
	resp, err := m.cfg.Cluster.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: recordKey(name)})
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return decode(resp.Kvs[0].Key, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
}

func decode(key, value []byte, revision int64) (*stored, error) {
	rec := &metapb.KeyspaceRecord{}
	if err := proto.Unmarshal(value, rec); err != nil {
		return nil, &base.Corruption{Where: string(key), Cause: err}
	}
	return &stored{rec, revision}, nil
}

// List returns all keyspaces that somebody made, in the order of their names.
func (m *Manager) List(ctx context.Context) ([]*metapb.KeyspaceRecord, error) {
	end := []byte(recordPrefix)
	end[len(end)-1]++
	resp, err := m.cfg.Cluster.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: []byte(recordPrefix), RangeEnd: end})
	if err != nil {
		return nil, err
	}
	var out []*metapb.KeyspaceRecord
	for _, kv := range resp.Kvs {
		rec, err := decode(kv.Key, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		out = append(out, rec.KeyspaceRecord)
	}
	return out, nil
}

// write replaces the record that was read, or makes one where there was none (revision 0); false if it is another by now. A nil
// record deletes it.
func (m *Manager) write(ctx context.Context, name string, revision int64, rec *metapb.KeyspaceRecord) (bool, error) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: recordKey(name)}}}
	if rec != nil {
		raw, err := proto.Marshal(rec)
		if err != nil {
			return false, err
		}
		op = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: recordKey(name), Value: raw}}}
	}
	return m.swap(ctx, recordKey(name), revision, op)
}

// swap carries op out if key was last written at revision.
func (m *Manager) swap(ctx context.Context, key []byte, revision int64, op *pb.RequestOp) (bool, error) {
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}}},
		Success: []*pb.RequestOp{op},
	}
	raw, err := proto.Marshal(txn)
	if err != nil {
		return false, err
	}
	msg, err := m.cfg.Cluster.Propose(ctx, base.KeyspaceSys, key, &kvpb.Command{Body: &kvpb.Command_Txn{Txn: raw}})
	if err != nil {
		return false, err
	}
	resp, ok := msg.(*pb.TxnResponse)
	if !ok {
		return false, fmt.Errorf("keyspace: a transaction was answered with a %T", msg)
	}
	return resp.Succeeded, nil
}

// next draws an id from a counter. One that is drawn and not used is lost, which is no loss.
func (m *Manager) next(ctx context.Context, counter string) (uint64, error) {
	for {
		resp, err := m.cfg.Cluster.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: []byte(counter)})
		if err != nil {
			return 0, err
		}
		id, revision := uint64(base.FirstFreeID), int64(0)
		if len(resp.Kvs) > 0 {
			kv := resp.Kvs[0]
			if len(kv.Value) != 8 {
				return 0, &base.Corruption{Where: counter, Cause: fmt.Errorf("it has %d bytes", len(kv.Value))}
			}
			id, revision = binary.BigEndian.Uint64(kv.Value)+1, kv.ModRevision
		}
		put := &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(counter), Value: binary.BigEndian.AppendUint64(nil, id)}}
		if ok, err := m.swap(ctx, []byte(counter), revision, &pb.RequestOp{Request: put}); ok || err != nil {
			return id, err
		}
	}
}
