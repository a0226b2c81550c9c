package join

import (
	"context"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// founderID is the id of the node that made the cluster. It gives itself that, before there is a ledger.
const founderID = 1

// entry is one record with the revision that wrote it.
type recordAt struct {
	record      *metapb.NodeRecord
	modRevision int64
}

// ledger is the node records and the node counter, as they were at one moment or a little later: the counter is
// read first, and every change that concerns ids or addresses writes it, so a change that was not seen makes the
// comparison of the counter fail.
type ledger struct {
	last       uint64 // the highest id given
	counterRev int64  // 0: the counter was never written
	nodes      []recordAt
}

func readLedger(ctx context.Context, c Cluster) (*ledger, error) {
	l := &ledger{last: founderID}
	counter, err := c.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: counterKey()})
	if err != nil {
		return nil, err
	}
	if len(counter.Kvs) > 0 {
		kv := counter.Kvs[0]
		if len(kv.Value) != 8 {
			return nil, &base.Corruption{Where: "the node counter", Cause: fmt.Errorf("it has %d bytes", len(kv.Value))}
		}
		l.last, l.counterRev = binary.BigEndian.Uint64(kv.Value), kv.ModRevision
	}
	l.nodes, err = readNodes(ctx, c)
	return l, err
}

// Reader reads linearizably.
type Reader interface {
	Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error)
}

// ReadNodes returns all node records of the cluster, ordered by id.
func ReadNodes(ctx context.Context, r Reader) ([]*metapb.NodeRecord, error) {
	nodes, err := readNodes(ctx, r)
	if err != nil {
		return nil, err
	}
	return (&ledger{nodes: nodes}).records(), nil
}

func readNodes(ctx context.Context, r Reader) ([]recordAt, error) {
	start, end := nodeSpan()
	resp, err := r.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: start, RangeEnd: end})
	if err != nil {
		return nil, err
	}
	nodes := make([]recordAt, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		rec := &metapb.NodeRecord{}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return nil, &base.Corruption{Where: fmt.Sprintf("node record %q", kv.Key), Cause: err}
		}
		nodes[i] = recordAt{record: rec, modRevision: kv.ModRevision}
	}
	return nodes, nil
}

// nextID is an id that was never given.
func (l *ledger) nextID() uint64 { return l.last + 1 }

func (l *ledger) byID(id uint64) *recordAt {
	for i := range l.nodes {
		if l.nodes[i].record.NodeId == id {
			return &l.nodes[i]
		}
	}
	return nil
}

func (l *ledger) byStore(uuid []byte) *recordAt {
	for i := range l.nodes {
		if sameStore(l.nodes[i].record.StoreUuid, uuid) {
			return &l.nodes[i]
		}
	}
	return nil
}

// byAddress is the node that holds the address and may come back to it.
func (l *ledger) byAddress(address string) *recordAt {
	for i := range l.nodes {
		if r := l.nodes[i].record; r.Address == address && alive(r) {
			return &l.nodes[i]
		}
	}
	return nil
}

func (l *ledger) records() []*metapb.NodeRecord {
	recs := make([]*metapb.NodeRecord, len(l.nodes))
	for i := range l.nodes {
		recs[i] = l.nodes[i].record
	}
	return recs
}

// after is the records as they are when c is carried out, ordered by id.
func (l *ledger) after(c *change) []*metapb.NodeRecord {
	byID := make(map[uint64]*metapb.NodeRecord)
	for _, r := range []*metapb.NodeRecord{c.record, c.retire} {
		if r != nil {
			byID[r.NodeId] = r
		}
	}
	recs := l.records()
	for i, r := range recs {
		if n, ok := byID[r.NodeId]; ok {
			recs[i] = n
			delete(byID, r.NodeId)
		}
	}
	if _, isNew := byID[c.record.NodeId]; isNew {
		recs = append(recs, c.record)
	}
	return recs
}

// commit writes the change in one transaction, if what it rests on is as it was read.
func (l *ledger) commit(ctx context.Context, cl sysrec.Cluster, c *change) (done bool, err error) {
	var t sysrec.Txn
	for _, rec := range []*metapb.NodeRecord{c.record, c.retire} {
		if rec == nil {
			continue
		}
		var rev int64 // 0: there is none, and must be none
		if old := l.byID(rec.NodeId); old != nil {
			rev = old.modRevision
		}
		t.At(nodeKey(rec.NodeId), rev)
		t.PutMessage(nodeKey(rec.NodeId), rec)
	}
	if c.addresses {
		t.At(counterKey(), l.counterRev)
		t.PutCounter(counterKey(), max(l.last, c.record.NodeId))
	}
	return t.Commit(ctx, cl)
}
