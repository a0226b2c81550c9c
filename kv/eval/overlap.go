package eval

import (
	"github.com/tidwall/btree"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// touched is what a list of operations may write, whichever way its nested transactions go.
type touched struct {
	puts map[string]struct{}
	dels *intervals // nil: none
}

// checkOverlaps refuses a list of operations that would put a key twice, or put and delete it, in one transaction. The
// two sides of a nested transaction exclude each other and may touch the same keys. As in etcd, a nested transaction's
// deletes are not held against the puts of its earlier siblings.
func checkOverlaps(ops []*pb.RequestOp) (touched, error) {
	if !mayOverlap(ops) {
		return touchedBy(ops), nil
	}
	var t touched
	for _, op := range ops {
		if r := op.GetRequestDeleteRange(); r != nil {
			t.delete(string(r.GetKey()), string(r.GetRangeEnd()))
		}
	}
	for _, op := range ops {
		r := op.GetRequestTxn()
		if r == nil {
			continue
		}
		then, err := checkOverlaps(r.GetSuccess())
		if err != nil {
			return t, err
		}
		otherwise, err := checkOverlaps(r.GetFailure())
		if err != nil {
			return t, err
		}
		if t.meets(then.puts) || t.meets(otherwise.puts) {
			return t, rpctypes.ErrGRPCDuplicateKey
		}
		t.join(then)
		t.join(otherwise)
	}
	for _, op := range ops {
		r := op.GetRequestPut()
		if r == nil {
			continue
		}
		if key := string(r.GetKey()); t.has(key) {
			return t, rpctypes.ErrGRPCDuplicateKey
		} else {
			t.put(key)
		}
	}
	return t, nil
}

// mayOverlap is false for the many transactions that write one thing at most.
func mayOverlap(ops []*pb.RequestOp) bool {
	writes := 0
	for _, op := range ops {
		switch op.GetRequest().(type) {
		case *pb.RequestOp_RequestTxn:
			return true
		case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
			writes++
		}
	}
	return writes > 1
}

func touchedBy(ops []*pb.RequestOp) (t touched) {
	for _, op := range ops {
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			t.put(string(r.RequestPut.GetKey()))
		case *pb.RequestOp_RequestDeleteRange:
			t.delete(string(r.RequestDeleteRange.GetKey()), string(r.RequestDeleteRange.GetRangeEnd()))
		}
	}
	return t
}

func (t *touched) put(key string) {
	if t.puts == nil {
		t.puts = map[string]struct{}{}
	}
	t.puts[key] = struct{}{}
}

// delete notes [key, end), or the key alone. An end of "\x00" is taken as it stands, below every key: so does etcd.
func (t *touched) delete(key, end string) {
	if end == "" {
		end = key + "\x00"
	}
	if t.dels == nil {
		t.dels = &intervals{}
	}
	t.dels.add(key, end)
}

func (t *touched) has(key string) bool {
	_, ok := t.puts[key]
	return ok || t.dels.has(key)
}

func (t *touched) meets(puts map[string]struct{}) bool {
	if len(t.puts) == 0 && t.dels == nil {
		return false
	}
	for key := range puts {
		if t.has(key) {
			return true
		}
	}
	return false
}

// join adds what o touches. It may take o's memory over: a chain of nested transactions is not copied at each step.
func (t *touched) join(o touched) {
	if t.puts == nil {
		t.puts = o.puts
	} else {
		for key := range o.puts {
			t.puts[key] = struct{}{}
		}
	}
	if t.dels == nil {
		t.dels = o.dels
	} else if o.dels != nil {
		o.dels.ends.Scan(func(begin, end string) bool {
			t.dels.add(begin, end)
			return true
		})
	}
}

// intervals is a set of strings made of intervals. Those it holds are disjoint, and none is empty.
type intervals struct{ ends btree.Map[string, string] } // begin → end

func (s *intervals) add(begin, end string) {
	if begin >= end {
		return
	}
	// What overlaps or touches the new interval is taken into it.
	s.ends.Descend(end, func(b, e string) bool {
		if e < begin {
			return false
		}
		begin, end = min(begin, b), max(end, e)
		return true
	})
	for {
		var b string
		found := false
		s.ends.Ascend(begin, func(k, _ string) bool {
			b, found = k, k <= end
			return false
		})
		if !found {
			break
		}
		s.ends.Delete(b)
	}
	s.ends.Set(begin, end)
}

func (s *intervals) has(key string) (found bool) {
	if s == nil {
		return false
	}
	s.ends.Descend(key, func(_, end string) bool {
		found = key < end
		return false
	})
	return found
}
