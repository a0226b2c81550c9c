package jepsen

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/linearizability"
)

func sortedKeys(m map[string]*mvccpb.KeyValue) iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(m)))
}

// A prefix is read whole, over pages, and nothing beside it.
func TestReadPrefix(t *testing.T) {
	fakes := newFakes(t, 1)
	for i := range 2*pageKeys + 500 {
		key := fmt.Sprintf("s001/%05d", i)
		fakes[0].data.keys[key] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte("v"), ModRevision: int64(i)}
	}
	for _, beside := range []string{"s000/z", "s0010", "s002/a"} {
		fakes[0].data.keys[beside] = &mvccpb.KeyValue{Key: []byte(beside)}
	}
	got, err := readOnce(t.Context(), fakes[0].address, defaultKeyspace(), "s001/", nil)
	if err != nil || len(got.keys) != 2*pageKeys+500 || got.revision != 1 {
		t.Fatalf("%d keys, %v", len(got.keys), err)
	}
	again, err := readOnce(t.Context(), fakes[0].address, defaultKeyspace(), "s001/", got)
	if err != nil || got.differs(again, keySet{}) != "" {
		t.Errorf("the same read differs: %s, %v", got.differs(again, keySet{}), err)
	}
}

// What is lost, new or changed is named, apart from what a write of unknown outcome may have done.
func TestDiffers(t *testing.T) {
	before := &content{keys: map[string]uint64{"a": 1, "b": 2, "c": 3, "d": 4}}
	after := &content{keys: map[string]uint64{"a": 1, "b": 20, "d": 4, "e": 5}}
	if got, want := before.differs(after, keySet{}), "b is not the same, c is gone, e is new"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	put := func(key string) *etcdserverpb.RequestOp {
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte(key)}}}
	}
	inner := &etcdserverpb.TxnRequest{Failure: []*etcdserverpb.RequestOp{put("b")}}
	maybe := written([]*linearizability.Op{
		{Request: &etcdserverpb.PutRequest{Key: []byte("e")}},
		{Request: &etcdserverpb.DeleteRangeRequest{Key: []byte("c"), RangeEnd: []byte("d")}},
		{Request: &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{
			{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: inner}}}}},
	})
	if got := before.differs(after, maybe); got != "" {
		t.Errorf("%q may all have been done", got)
	}
	if maybe.has("d") || maybe.has("a") {
		t.Error("keys that nobody wrote may have been written")
	}

	many := &content{keys: map[string]uint64{}}
	for i := range 2 * maxNamed {
		many.keys[fmt.Sprint(i)] = 1
	}
	if got := many.differs(&content{}, keySet{}); !strings.HasSuffix(got, fmt.Sprintf("and %d more", maxNamed)) {
		t.Errorf("%q", got)
	}
}
