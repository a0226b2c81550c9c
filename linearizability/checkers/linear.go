package checkers

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/models"
)

// linearTimeout bounds porcupine's search of one partition. Partitions of the workloads are decided in milliseconds.
const linearTimeout = 30 * time.Second

// Linearizable has porcupine look for an order of a workload's operations that explains all answers, with their
// revisions. perKey: each operation touches one key, which is a partition; else keys are grouped by what stands before
// their last slash, and an operation touches one group. What is not decided in time is a violation.
func Linearizable(prefix string, perKey bool) linearizability.Checker {
	const name = "linearizable"
	return linearizability.Checker{Name: name, Check: func(h *linearizability.History) (found []linearizability.Violation) {
		for _, part := range partitions(h, prefix, perKey) {
			switch part.decide() {
			case porcupine.Ok:
			case porcupine.Illegal:
				found = append(found, linearizability.Violation{
					Checker: name, What: fmt.Sprintf("no order of %d operations on %q explains their answers", len(part.ops)+len(part.guess), part.name), Ops: part.shrink(),
				})
			default:
				found = append(found, linearizability.Violation{Checker: name, What: fmt.Sprintf("%d operations on %q were not decided within %s", len(part.ops)+len(part.guess), part.name, linearTimeout)})
			}
		}
		return found
	}}
}

// partition is the operations on one key or group.
type partition struct {
	name  string
	ops   []porcupine.Operation
	guess []porcupine.Operation // writes without an answer, which nobody saw
	told  []porcupine.Operation // all of them, in the order that the driver tells; nil if it does not
}

// decide tries the order of the revisions, then the one that the driver tells, if it does. Else it looks for an order without the writes that nobody saw: if there is one, they may have come last, or never. If there
// is none, with one of them, with two, with three; and only then with all of them at every place, which takes long if they
// are many.
func (p *partition) decide() porcupine.CheckResult {
	if p.witness() {
		return porcupine.Ok
	}
	with := func(timeout time.Duration, guessed ...porcupine.Operation) porcupine.CheckResult {
		return porcupine.CheckOperationsTimeout(models.KV(), slices.Concat(p.ops, guessed), timeout)
	}
	if p.told != nil && porcupine.CheckOperationsTimeout(models.KV(), p.told, linearTimeout) == porcupine.Ok {
		return porcupine.Ok // an order that explains the answers is one, whoever told it
	}
	result := with(linearTimeout)
	if result == porcupine.Ok || len(p.guess) == 0 {
		return result
	}
	for i := range p.guess {
		if with(subsetTimeout, p.guess[i]) == porcupine.Ok {
			return porcupine.Ok
		}
	}
	for i := range p.guess {
		for j := range i {
			if with(subsetTimeout, p.guess[i], p.guess[j]) == porcupine.Ok {
				return porcupine.Ok
			}
		}
	}
	for i := range p.guess {
		for j := range i {
			for k := range j {
				if with(subsetTimeout, p.guess[i], p.guess[j], p.guess[k]) == porcupine.Ok {
					return porcupine.Ok
				}
			}
		}
	}
	return with(linearTimeout, p.guess...)
}

// witness says whether the order of the revisions explains all answers: a write, then the reads of its state. That is all
// of it nearly always, however many clients there are, and takes no search.
func (p *partition) witness() bool {
	type place struct {
		op    porcupine.Operation
		rev   int64
		reads bool
	}
	var order []place
	for _, o := range p.ops {
		in := o.Input.(models.Input)
		at := place{op: o, rev: in.Seen}
		if in.Op.Outcome == linearizability.OK {
			at.rev, at.reads = revisionOf(in.Op), !changed(in.Op)
		}
		order = append(order, at)
	}
	slices.SortStableFunc(order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.rev, b.rev), compareBool(a.reads, b.reads), cmp.Compare(a.op.Call, b.op.Call))
	})
	m := models.KV()
	state := m.Init()
	begun := int64(0) // the latest beginning of what stands before
	for _, at := range order {
		if at.op.Return < begun {
			return false // it had ended before something began that stands before it
		}
		begun = max(begun, at.op.Call)
		var ok bool
		if ok, state = m.Step(state, at.op.Input, nil); !ok {
			return false
		}
	}
	return true
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// subsetTimeout bounds the search with a few of the writes that nobody saw.
const subsetTimeout = time.Second

// partitions sorts the operations that may have had an effect, or an answer, by key or group.
func partitions(h *linearizability.History, prefix string, perKey bool) []partition {
	byName := map[string]*partition{}
	seen := revisionsSeen(gather(h, prefix))
	var order []*partition
	for _, op := range h.Ops {
		if op.Outcome == linearizability.Failed {
			continue
		}
		key := firstKey(op.Request)
		if op.Outcome == linearizability.Unknown && len(wouldWrite(op.Request)) == 0 || !strings.HasPrefix(key, prefix) {
			continue
		}
		if r, ok := op.Request.(*pb.RangeRequest); ok && r.Serializable {
			continue // it may be old
		}
		if i := strings.LastIndexByte(key, '/'); !perKey && i >= 0 {
			key = key[:i]
		}
		p := byName[key]
		if p == nil {
			p = &partition{name: key}
			byName[key] = p
			order = append(order, p)
		}
		end := op.Returned
		if end == 0 {
			end = math.MaxInt64
		}
		in := models.Input{Op: op}
		if op.Outcome == linearizability.Unknown {
			for _, w := range wouldWrite(op.Request) {
				in.Seen = max(in.Seen, seen[[2]string{w.key, w.value}])
			}
		}
		o := porcupine.Operation{ClientId: op.Client, Input: in, Call: op.Invoked, Return: end}
		if op.Place != 0 && (op.Outcome == linearizability.OK || op.Place > 0) {
			told := o
			told.Input = models.Input{Op: op, Place: op.Place}
			p.told = append(p.told, told)
		} else if op.Outcome == linearizability.OK {
			p.told = append(p.told, o)
		}
		if op.Outcome == linearizability.Unknown && in.Seen == 0 {
			p.guess = append(p.guess, o)
		} else {
			p.ops = append(p.ops, o)
		}
	}
	out := make([]partition, 0, len(order))
	for _, p := range order {
		out = append(out, *p)
	}
	return out
}

// revisionsSeen are the revisions at which values were read: each value is written once.
func revisionsSeen(f *facts) map[[2]string]int64 {
	seen := map[[2]string]int64{}
	for _, s := range f.seen {
		for _, kv := range s.kvs {
			seen[[2]string{string(kv.Key), string(kv.Value)}] = kv.ModRevision
		}
	}
	return seen
}

// firstKey is a key that a request touches: the partition's, for all of its keys are in one.
func firstKey(req proto.Message) string {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return string(r.Key)
	case *pb.PutRequest:
		return string(r.Key)
	case *pb.DeleteRangeRequest:
		return string(r.Key)
	case *pb.TxnRequest:
		if len(r.Compare) > 0 {
			return string(r.Compare[0].Key)
		}
		for _, o := range slices.Concat(r.Success, r.Failure) {
			if q := o.GetRequestRange(); q != nil {
				return string(q.Key)
			}
			if q := o.GetRequestPut(); q != nil {
				return string(q.Key)
			}
			if q := o.GetRequestDeleteRange(); q != nil {
				return string(q.Key)
			}
		}
	}
	return ""
}

// shrink leaves out, from the end, operations that were not needed for the contradiction: the first ones that cannot be
// explained, with the ones that lead up to them.
func (p *partition) shrink() (out []*linearizability.Op) {
	ops := slices.Concat(p.ops, p.guess)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	lo, hi := 1, len(ops) // the fewest first ones that are illegal
	for lo < hi {
		mid := (lo + hi) / 2
		if porcupine.CheckOperationsTimeout(models.KV(), ops[:mid], linearTimeout/10) == porcupine.Illegal {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	for _, o := range ops[max(0, lo-6):lo] {
		out = append(out, o.Input.(models.Input).Op)
	}
	return out
}
