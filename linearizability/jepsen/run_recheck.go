package jepsen

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/workloads"
)

// Checked is what a history file came to. Its JSON is an interface: fields are only ever added.
type Checked struct {
	File       string    `json:"file"`
	Workloads  []string  `json:"workloads"`
	Operations Counts    `json:"operations"`
	Seconds    float64   `json:"seconds"`
	Damage     string    `json:"damage"` // why the file could not be read to its end
	Violations []Failure `json:"violations"`
}

// Check holds a stage's history file against the checkers of the workloads that its keys name. A file that is cut short
// or damaged is checked as far as it goes, and Damage says where that was; an error means that nothing could be checked.
func Check(in io.Reader) (*Checked, error) {
	h, damage := linearizability.ReadHistory(in)
	if h == nil {
		return nil, damage
	}
	works, stage, err := worksOf(h)
	if err != nil {
		return nil, err
	}
	out := &Checked{Operations: count(h.Ops)}
	for _, w := range works {
		out.Workloads = append(out.Workloads, w.name)
	}
	if damage != nil {
		out.Damage = damage.Error()
	}
	begun := time.Now()
	for _, v := range violations(works, h) {
		if len(out.Violations) < maxFailures {
			out.Violations = append(out.Violations, Failure{stage, v.Checker, describe(v)})
		}
	}
	out.Seconds = time.Since(begun).Seconds()
	return out, nil
}

var errNoWorkload = errors.New("no key of the history names a workload: it is not of a run")

// worksOf finds the workloads whose history it is: those of the last stage that its keys name. Keys of stages before are
// those of writes that nobody knows the outcome of.
func worksOf(h *linearizability.History) (works []*work, stage int, err error) {
	stage = -1
	var found, watchers []string
	at := make(map[string]keyspace) // each workload's
	for _, op := range h.Ops {
		if name := watcherOf(op.Request); name != "" && !slices.Contains(watchers, name) {
			watchers = append(watchers, name)
		}
		key := firstKey(op.Request)
		var number int
		if _, err := fmt.Sscanf(key, "s%d/", &number); err != nil {
			continue
		}
		name, _, ok := strings.Cut(strings.TrimPrefix(key, stagePrefix(number)), "/")
		if !ok || number < stage {
			continue
		}
		if number > stage {
			stage, found = number, nil
		}
		if !slices.Contains(found, name) {
			found = append(found, name)
		}
		at[name] = keyspace{id: base.KeyspaceID(op.Keyspace)}
	}
	for _, name := range watchers {
		found, at[name] = append(found, name), keyspace{id: base.KeyspaceSys}
	}
	if len(found) == 0 {
		return nil, 0, errNoWorkload
	}
	slices.Sort(found)
	for _, name := range found {
		kind, ok := workloads.Named(name)
		if !ok {
			return nil, 0, fmt.Errorf("stage %d: no workload is named %s: the history is of another version", stage, name)
		}
		prefix := stagePrefix(stage) + name + "/"
		works = append(works, &work{name: name, prefix: prefix, keyspace: at[name], w: kind.New(prefix, 0)})
	}
	return works, stage, nil
}

// watcherOf names the workload whose checker looks at a request that has no key of its own; empty: it is another's.
func watcherOf(req proto.Message) string {
	switch req.(type) {
	case *clusterpb.ListNodesRequest:
		return "liveness"
	case *clusterpb.ListRangesRequest:
		return "placement"
	}
	return ""
}

// firstKey is a key that a request names; empty if it names none.
func firstKey(req proto.Message) string {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return string(r.Key)
	case *pb.PutRequest:
		return string(r.Key)
	case *pb.DeleteRangeRequest:
		return string(r.Key)
	case *followpb.FollowRequest:
		return string(r.Key)
	case *pb.TxnRequest:
		if len(r.Compare) > 0 {
			return string(r.Compare[0].Key)
		}
		for _, op := range slices.Concat(r.Success, r.Failure) {
			var key string
			switch x := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				key = firstKey(x.RequestRange)
			case *pb.RequestOp_RequestPut:
				key = firstKey(x.RequestPut)
			case *pb.RequestOp_RequestDeleteRange:
				key = firstKey(x.RequestDeleteRange)
			case *pb.RequestOp_RequestTxn:
				key = firstKey(x.RequestTxn)
			}
			if key != "" {
				return key
			}
		}
	}
	return ""
}
