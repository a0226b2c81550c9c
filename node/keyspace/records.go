package keyspace

import (
	"context"
	"encoding/binary"
	"regexp"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
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

// CheckName says what is wrong with a name for a keyspace that somebody makes.
func CheckName(name string) error {
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
	kv, err := sysrec.Get(ctx, m.cfg.Cluster, recordKey(name))
	if err != nil || kv.ModRevision == 0 {
		return nil, err
	}
	return decode(kv)
}

func decode(kv *mvccpb.KeyValue) (*stored, error) {
	rec := &metapb.KeyspaceRecord{}
	return &stored{rec, kv.ModRevision}, sysrec.Decode(kv, rec)
}

// List returns all keyspaces that somebody made, in the order of their names.
func (m *Manager) List(ctx context.Context) ([]*metapb.KeyspaceRecord, error) {
	end := []byte(recordPrefix)
	end[len(end)-1]++
	kvs, err := sysrec.List(ctx, m.cfg.Cluster, []byte(recordPrefix), end)
	if err != nil {
		return nil, err
	}
	var out []*metapb.KeyspaceRecord
	for _, kv := range kvs {
		rec, err := decode(kv)
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
	var t sysrec.Txn
	t.At(recordKey(name), revision)
	if rec != nil {
		t.PutMessage(recordKey(name), rec)
	} else {
		t.Delete(recordKey(name))
	}
	return t.Commit(ctx, m.cfg.Cluster)
}

// next draws an id from a counter.
func (m *Manager) next(ctx context.Context, counter string) (uint64, error) {
	return sysrec.Draw(ctx, m.cfg.Cluster, []byte(counter), base.FirstFreeID)
}

// Records are what `sys` holds of keyspaces that a cluster begins with, each with one range, whose ids count from base.FirstFreeID. No
// keyspace's id up to the last is used again.
func Records(recs []*metapb.KeyspaceRecord, last uint64) (out []*mvccpb.KeyValue, err error) {
	for _, r := range recs {
		raw, err := proto.Marshal(r)
		if err != nil {
			return nil, err
		}
		out = append(out, &mvccpb.KeyValue{Key: recordKey(r.Name), Value: raw})
	}
	counter := func(key string, last uint64) {
		out = append(out, &mvccpb.KeyValue{Key: []byte(key), Value: binary.BigEndian.AppendUint64(nil, last)})
	}
	counter(keyspaceCounter, last)
	counter(rangeCounter, base.FirstFreeID-1+uint64(len(recs)))
	return out, nil
}
