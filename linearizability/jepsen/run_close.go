package jepsen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	mvcc "go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// setup makes the requests that come before the clients. What certainly had no effect is tried again; of what is unknown
// nobody can say whether it would change a balance later, so that it ends the stage.
func (l *load) setup(limit context.Context) error {
	for _, w := range l.works {
		c := l.caller(0, w.keyspace)
		defer c.close()
		for _, req := range w.w.Setup() {
			op, err := c.until(limit, req, false)
			if err != nil {
				return fmt.Errorf("the setup of %s: %w", w.name, err)
			}
			if op.Outcome != linearizability.OK {
				return fmt.Errorf("the setup of %s: the outcome of a request is not known: %s", w.name, op.Err)
			}
		}
	}
	return nil
}

// final makes the reads of the closing phase, some from each node in turn.
func (l *load) final(limit context.Context) error {
	for n, w := range l.works {
		c := l.caller(n, w.keyspace)
		defer c.close()
		for i, req := range w.w.Final() {
			if _, err := c.until(limit, req, true); err != nil {
				return fmt.Errorf("a closing read of %s: %w", w.name, err)
			}
			if i%finalReads == finalReads-1 {
				c.move()
			}
		}
	}
	return nil
}

// finalReads closing reads are made from one node before the next one is asked.
const finalReads = 20

// serves waits until a node answers a linearizable read of a key. It is recorded like any other, at a revision that a checker can
// hold against the others.
func (l *load) serves(limit context.Context, node int, ks keyspace, key []byte) error {
	c := l.caller(node, ks)
	defer c.close()
	for {
		err := c.connect(limit)
		if err == nil {
			if _, err = c.do(limit, &pb.RangeRequest{Key: key}, false); err == nil {
				return nil
			}
		}
		c.close()
		if !pause(limit, nil, pauseNoConnection) {
			return err
		}
	}
}

// probeKey is below every stage's prefix and is never written.
const probeKey = "probe"

// until does a request, on another node after each error, until it has an outcome that is not Failed.
func (c *caller) until(limit context.Context, req proto.Message, final bool) (*linearizability.Op, error) {
	for {
		err := c.connect(limit)
		if err == nil {
			var op *linearizability.Op
			op, err = c.do(limit, req, final)
			if op.Outcome != linearizability.Failed {
				return op, nil
			}
		}
		c.move()
		if !pause(limit, nil, pauseNoConnection) {
			return nil, err
		}
	}
}

// content is the keys below a prefix at one revision, each with a hash of all that is stored of it.
type content struct {
	revision int64
	keys     map[string]uint64
	leased   []string // of them, those that have a lease
}

// pageKeys is how many keys a read of a content asks for at once.
const pageKeys = 1000

// read reads the keys below a prefix. Revision 0 is the newest; the first page's revision then holds for all.
func read(ctx context.Context, k *link, prefix string, revision int64, serializable bool) (*content, error) {
	out := &content{revision: revision, keys: make(map[string]uint64)}
	req := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), Limit: pageKeys, Serializable: serializable}
	for {
		req.Revision = out.revision
		m, err := k.call(ctx, req)
		if err != nil {
			return nil, err
		}
		resp := m.(*pb.RangeResponse)
		if out.revision == 0 {
			out.revision = resp.Header.GetRevision()
		}
		for _, kv := range resp.Kvs {
			out.keys[string(kv.Key)] = fingerprint(kv)
			if kv.Lease != 0 {
				out.leased = append(out.leased, string(kv.Key))
			}
		}
		if !resp.More {
			return out, nil
		}
		if len(resp.Kvs) == 0 {
			return nil, errors.New("a page without keys says that there are more")
		}
		req.Key = append(slices.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
	}
}

func fingerprint(kv *mvcc.KeyValue) uint64 {
	var b []byte
	for _, n := range []int64{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return xxhash.Sum64(append(b, kv.Value...))
}

// prefixEnd is the end of the range of keys that begin with a prefix that does not end with 0xff.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// kept is what a stage left behind, to be looked for again at the end of the run: nobody writes there any more.
type kept struct {
	stage    int
	keyspace keyspace
	prefix   string
	content  *content
	// maybe are keys that a write of unknown outcome names: it may still take effect.
	maybe keySet
}

// keep reads what a stage left behind in a keyspace, from each node at one revision, and compares: replicas that are equal answer
// alike.
func (r *run) keep(ctx context.Context, number int, l *load, ks keyspace) (kept, error) {
	limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
	defer cancel()
	k := kept{stage: number, keyspace: ks, prefix: stagePrefix(number), maybe: written(l.record.open())}
	for i, address := range l.endpoints() {
		own, err := readFrom(limit, address, ks, k.prefix, k.content)
		if err != nil {
			return k, fmt.Errorf("reading all keys from node %d: %w", i+1, err)
		}
		if k.content == nil {
			k.content = own
			continue
		}
		if d := k.content.differs(own, keySet{}); d != "" {
			r.report.fail(number, "replicas agree", "nodes 1 and %d at revision %d: %s", i+1, own.revision, d)
		}
	}
	for _, key := range k.content.leased {
		k.maybe.keys[key] = struct{}{} // it goes when its lease ends
	}
	return k, nil
}

// readFrom reads a prefix from one node until that succeeds: first as of now, so that the node's replica has caught up,
// then from the replica itself at the revision of like.
func readFrom(limit context.Context, address string, ks keyspace, prefix string, like *content) (*content, error) {
	for {
		got, err := readOnce(limit, address, ks, prefix, like)
		if err == nil {
			return got, nil
		}
		if !pause(limit, nil, pauseNoConnection) {
			return nil, err
		}
	}
}

func readOnce(ctx context.Context, address string, ks keyspace, prefix string, like *content) (*content, error) {
	k, err := dial(ctx, address, ks)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if like == nil {
		return read(ctx, k, prefix, 0, false)
	}
	if _, err := k.call(ctx, &pb.RangeRequest{Key: []byte(probeKey)}); err != nil {
		return nil, err
	}
	return read(ctx, k, prefix, like.revision, true)
}

// differs names keys that are not the same, apart from those that may differ; empty if there are none.
func (c *content) differs(o *content, maybe keySet) string {
	var out []string
	for key, print := range c.keys {
		other, there := o.keys[key]
		switch {
		case there && other == print || maybe.has(key):
		case there:
			out = append(out, key+" is not the same")
		default:
			out = append(out, key+" is gone")
		}
	}
	for key := range o.keys {
		if _, there := c.keys[key]; !there && !maybe.has(key) {
			out = append(out, key+" is new")
		}
	}
	slices.Sort(out)
	if more := len(out) - maxNamed; more > 0 {
		out = append(out[:maxNamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// maxNamed keys tell what is wrong.
const maxNamed = 10

// same looks again for what a stage left behind.
func (k kept) same(ctx context.Context, r *run) error {
	limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
	defer cancel()
	all := r.endpoints()
	now, err := readFrom(limit, all[k.stage%len(all)], k.keyspace, k.prefix, nil)
	if err != nil {
		return err
	}
	if d := k.content.differs(now, k.maybe); d != "" {
		return fmt.Errorf("between revisions %d and %d, without a writer: %s", k.content.revision, now.revision, d)
	}
	return nil
}

// keySet is keys and ranges of them.
type keySet struct {
	keys   map[string]struct{}
	ranges [][2]string // [from, to)
}

func (s keySet) has(key string) bool {
	if _, in := s.keys[key]; in {
		return true
	}
	return slices.ContainsFunc(s.ranges, func(r [2]string) bool { return r[0] <= key && key < r[1] })
}

// written is all that some operations may write.
func written(ops []*linearizability.Op) keySet {
	s := keySet{keys: make(map[string]struct{})}
	for _, op := range ops {
		s.add(op.Request)
	}
	return s
}

func (s *keySet) add(req proto.Message) {
	switch r := req.(type) {
	case *pb.PutRequest:
		s.keys[string(r.Key)] = struct{}{}
	case *pb.DeleteRangeRequest:
		if len(r.RangeEnd) == 0 {
			s.keys[string(r.Key)] = struct{}{}
			return
		}
		s.ranges = append(s.ranges, [2]string{string(r.Key), string(r.RangeEnd)})
	case *pb.TxnRequest:
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range ops {
				switch x := op.Request.(type) {
				case *pb.RequestOp_RequestPut:
					s.add(x.RequestPut)
				case *pb.RequestOp_RequestDeleteRange:
					s.add(x.RequestDeleteRange)
				case *pb.RequestOp_RequestTxn:
					s.add(x.RequestTxn)
				}
			}
		}
	}
}
