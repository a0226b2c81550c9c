// Package workloads makes the requests of a run's clients: each workload is one file, and one line in Kinds.
//
// To add one: write a type that implements linearizability.Workload. Its keys begin with the prefix that it is given; each
// value that it writes names its writer, so that every read says whose write it shows; everything random comes from the
// source in Next; keys are left for fresh ones before an operation on them would make a checker slow. Checkers returns
// checkers.All(prefix), what porcupine can say of it, and what only this workload knows.
package workloads

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Kinds lists all workloads.
func Kinds() []linearizability.Kind {
	return []linearizability.Kind{
		{Name: "register", About: "put, get, delete and compare-and-set over few keys: linearizable key by key", New: newRegister},
		{Name: "spread", About: "as register, in a keyspace of many ranges: linearizable key by key, with revisions that only each key has in order", New: newSpread, Cut: atKey},
		{Name: "spread-append", About: "as append, in a keyspace of many ranges, several groups at once", New: newSpreadAppend, Cut: atGroup},
		{Name: "spread-bank", About: "as bank, in a keyspace of many ranges, several banks at once", New: newSpreadBank, Cut: atGroup},
		{Name: "snapshot", About: "single keys of many ranges written, and read together, by pages, and again: one order of all, strictly serializable", New: newSnapshot, Cut: atKey},
		{Name: "set", About: "adds unique elements and reads all: nothing lost, nothing of nobody", New: newSet},
		{Name: "append", About: "lists in several keys, appended to under comparisons: transactions in one order", New: newAppend},
		{Name: "txn", About: "transactions that read, write and delete several keys, in both branches", New: newTxn},
		{Name: "bank", About: "transfers between accounts: every read sees the same total", New: newBank},
		{Name: "placement", About: "follows where the index and the nodes say that ranges are: who is named serves, and nothing goes back", New: newPlacement, Watches: true},
		{Name: "liveness", About: "looks at the nodes' records and asks nodes that are not well: epochs only grow, who was given up serves nothing", New: newLiveness, Watches: true},
		{Name: "watch", About: "watches keys, groups and the whole keyspace, from the past, now and the future, while others write: the seven promises of a watch", New: newFollow, Follows: true},
		{Name: "spread-watch", About: "as watch, in a keyspace of many ranges", New: newSpreadFollow, Cut: atGroup, Follows: true},
		{Name: "lock", About: "sessions compete for locks by their leases, and write with fencing tokens: no lease ends early, no token goes back", New: newLock, Leases: true},
		{Name: "spread-lock", About: "as lock, in a keyspace of many ranges: leases, locks and registers each in their own", New: newSpreadLock, Cut: atGroup, Leases: true},
		{Name: "monotonic", About: "counters that only grow: no client's reads go back, no two clients see two orders", New: newMonotonic},
	}
}

// Named finds a workload.
func Named(name string) (linearizability.Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return linearizability.Kind{}, false
}

// atKey lets a keyspace be cut at every key.
func atKey(key []byte) []byte { return key }

// atGroup lets it be cut before a group: what is the same up to the last slash.
func atGroup(key []byte) []byte { return key[:bytes.LastIndexByte(key, '/')+1] }

// values makes values that name their writer.
type values struct{ n int }

func (v *values) next(client int) []byte {
	v.n++
	return fmt.Appendf(nil, "c%d-%d", client, v.n)
}

// rotation leaves keys for fresh ones: every so many operations another generation of them begins.
type rotation struct {
	prefix   string
	per, ops int
}

// generation is the prefix of the keys in use now. It counts one operation.
func (r *rotation) generation() string {
	r.ops++
	return fmt.Sprintf("%s%d", r.prefix, r.ops/r.per)
}

func get(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

// all reads every key that begins with a prefix.
func all(prefix string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end(prefix)}
}

// end is the first key behind all that begin with a prefix, whose last byte is not 0xff.
func end(prefix string) []byte {
	e := []byte(prefix)
	e[len(e)-1]++
	return e
}

func put(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
}

func del(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func read(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// unchanged compares a key's mod revision with one that was read; 0: it did not exist.
func unchanged(key string, mod int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}
}

// none is a workload's Setup that needs none.
type none struct{}

// Setup implements linearizability.Workload.
func (none) Setup() []proto.Message { return nil }
