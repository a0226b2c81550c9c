package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a cluster of three nodes as a check sees it. Its replicas have engines of their own, which tests spoil.
type world struct {
	t       *testing.T
	records []*metapb.KeyspaceRecord

	mu     sync.Mutex
	index  map[base.KeyspaceID]map[string][]byte // by the keyspace that holds it
	ranges map[base.RangeID]map[base.NodeID]*copied
	down   map[base.NodeID]string
	looks  int                                                             // how often the index was read
	looked func(look int)                                                  // before that
	asked  func(base.NodeID, base.RangeID, *rangepb.ChecksumRequest) error // before a replica answers
}

// copied is a replica.
type copied struct {
	desc           *metapb.RangeDescriptor
	revision, mark int64
	eng            engine.Engine
}

const shards = base.KeyspaceID(100)

// newWorld is a cluster with the keyspaces of every cluster and "shards", cut at g and p. Nothing is wrong with it.
func newWorld(t *testing.T) *world {
	w := &world{
		t: t, index: map[base.KeyspaceID]map[string][]byte{base.KeyspaceRoot: {}, base.KeyspaceMeta: {}},
		ranges: map[base.RangeID]map[base.NodeID]*copied{}, down: map[base.NodeID]string{},
		looked: func(int) {}, asked: func(base.NodeID, base.RangeID, *rangepb.ChecksumRequest) error { return nil },
		records: []*metapb.KeyspaceRecord{
			{KeyspaceId: uint64(shards), Name: "shards", State: metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE},
			{KeyspaceId: 101, Name: "half", State: metapb.KeyspaceState_KEYSPACE_STATE_CREATING},
		},
	}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		w.add(base.RangeID(ks), ks, "", "")
	}
	w.add(100, shards, "", "g")
	w.add(101, shards, "g", "p")
	w.add(102, shards, "p", "")
	return w
}

// add makes a range with three replicas and some versions, and lists it.
func (w *world) add(id base.RangeID, ks base.KeyspaceID, start, end string) {
	d := &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(ks), Start: []byte(start), End: []byte(end), Generation: 3, NextReplicaId: 4}
	for n := uint64(1); n <= 3; n++ {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: n, NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	w.ranges[id] = map[base.NodeID]*copied{}
	for n := base.NodeID(1); n <= 3; n++ {
		w.ranges[id][n] = &copied{desc: d, revision: 10, eng: engine.NewMem()}
		for i, k := range []string{"a", "b", "c"} {
			w.write(id, n, start+k, int64(i+2), "value of "+k)
			w.write(id, n, start+k, int64(i+6), "new value of "+k)
		}
	}
	w.list(d)
}

func (w *world) write(id base.RangeID, node base.NodeID, key string, revision int64, value string) {
	c := w.ranges[id][node]
	b := c.eng.NewBatch()
	defer b.Close()
	k := keys.Data(nil, base.KeyspaceID(c.desc.KeyspaceId), []byte(key), base.Revision(revision))
	if value == "" {
		must(w.t, b.Delete(k))
	} else {
		must(w.t, b.Set(k, []byte(value)))
	}
	must(w.t, b.CommitNoSync())
}

// list puts a descriptor into the index.
func (w *world) list(d *metapb.RangeDescriptor) {
	if in, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId)); ok {
		raw, err := desc.Encode(d)
		must(w.t, err)
		w.index[in][string(route.DescriptorKey(d))] = raw
	}
}

func (w *world) unlist(id base.RangeID) {
	d := w.of(id)
	in, _ := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
	delete(w.index[in], string(route.DescriptorKey(d)))
}

// of is what a range says of itself.
func (w *world) of(id base.RangeID) *metapb.RangeDescriptor { return w.ranges[id][1].desc }

// become gives all replicas of a range another descriptor, which the index does not know.
func (w *world) become(id base.RangeID, change func(*metapb.RangeDescriptor)) *metapb.RangeDescriptor {
	d := desc.Clone(w.of(id))
	change(d)
	for _, c := range w.ranges[id] {
		c.desc = d
	}
	return d
}

func (w *world) Range(_ context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ks == base.KeyspaceRoot {
		w.looks++
		w.looked(w.looks)
	}
	resp := &pb.RangeResponse{}
	for k, v := range w.index[ks] {
		if k >= string(req.Key) {
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(k), Value: v})
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if len(resp.Kvs) > 2 { // a page
		resp.Kvs, resp.More = resp.Kvs[:2], true
	}
	return resp, nil
}

func (w *world) Descriptor(_ context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, copies := range w.ranges {
		for n, c := range copies {
			if w.down[n] == "" && desc.Contains(c.desc, ks, key) {
				return c.desc, nil
			}
		}
	}
	return nil, &route.NoRange{Keyspace: ks, Asked: 1}
}

func (w *world) Checksum(_ context.Context, node base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[node] != "" {
		return nil, &base.NotLeader{Range: id}
	}
	if err := w.asked(node, id, req); err != nil {
		return nil, err
	}
	c := w.ranges[id][node]
	if c == nil {
		return nil, &base.RangeMoved{Range: id}
	}
	resp := &rangepb.ChecksumResponse{Descriptor_: c.desc, Revision: c.revision, Compacted: c.mark}
	if req.Revision == 0 || req.Generation != c.desc.Generation || req.Compacted < c.mark {
		return resp, nil
	}
	p := apply.Page{Revision: base.Revision(req.Revision), Compacted: base.Revision(req.Compacted), State: req.State, Bytes: 64}
	if req.Limit > 0 {
		p.Bytes = int(min(req.Limit, 64))
	}
	for from, to := range map[*rangepb.VersionPosition]**apply.Position{req.After: &p.After, req.Until: &p.Until} {
		if from != nil {
			*to = &apply.Position{Key: from.Key, Revision: base.Revision(from.Revision)}
		}
	}
	h, err := apply.HashVersions(c.eng, c.desc, p, func(int) error { return nil })
	if err != nil {
		return nil, err
	}
	resp.Hashed, resp.Sum, resp.State, resp.End, resp.Versions, resp.Bytes = true, h.Sum, h.State, h.End, uint64(h.Versions), uint64(h.Bytes)
	if !h.End {
		resp.Reached = &rangepb.VersionPosition{Key: h.Reached.Key, Revision: int64(h.Reached.Revision)}
	}
	return resp, nil
}

// status is what the nodes that are up say of their replicas.
func (w *world) status(context.Context) *clusterpb.StatusResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := &clusterpb.StatusResponse{}
	for n := base.NodeID(1); n <= 3; n++ {
		st.Nodes = append(st.Nodes, &clusterpb.NodeEntry{Node: &metapb.NodeRecord{NodeId: uint64(n)}, Reachable: w.down[n] == "", Error: w.down[n]})
	}
	for _, copies := range w.ranges {
		var newest *metapb.RangeDescriptor
		for n, c := range copies {
			if w.down[n] == "" && c.desc.Generation > newest.GetGeneration() {
				newest = c.desc
			}
		}
		if newest != nil {
			st.Ranges = append(st.Ranges, &clusterpb.RangeEntry{Descriptor_: newest})
		}
	}
	return st
}

// check runs a check, and returns what it said, a line each, and the summary.
func (w *world) check(req *clusterpb.CheckRequest) (said []string, sum *clusterpb.CheckSummary) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	err := Run(ctx, Config{
		Cluster: w, Status: w.status, LookPause: time.Millisecond,
		Keyspaces: func(context.Context) ([]*metapb.KeyspaceRecord, error) { return w.records, nil },
	}, req, func(r *clusterpb.CheckResponse) error {
		if sum != nil {
			return errors.New("something came behind the summary")
		}
		switch b := r.Body.(type) {
		case *clusterpb.CheckResponse_Finding:
			f := b.Finding
			if f.Here == "" || f.There == "" || f.Next == "" {
				w.t.Errorf("a finding does not say all: %v", f)
			}
			said = append(said, fmt.Sprintf("%s %s r%d n%d: %s", strings.TrimPrefix(f.Part.String(), "CHECK_PART_"), f.Keyspace, f.RangeId, f.NodeId, f.What))
		case *clusterpb.CheckResponse_Unseen:
			u := b.Unseen
			said = append(said, fmt.Sprintf("UNSEEN %s r%d n%d, %d replicas: %s", u.Keyspace, u.RangeId, u.NodeId, u.Replicas, u.Reason))
		case *clusterpb.CheckResponse_Summary:
			sum = b.Summary
		}
		return nil
	})
	must(w.t, err)
	slices.Sort(said)
	return said, sum
}
