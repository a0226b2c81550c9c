package jepsen

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/models"
)

const (
	// pictureOps are as many as a browser shows well.
	pictureOps = 400
	// pictureTime bounds porcupine's search for the longest explanation that a picture of a failure shows.
	pictureTime = 10 * time.Second
)

// pictures draws, by porcupine, the operations on a key that a checker complained of; of a stage that passed, those on one
// key that has many. A stage whose keys are all too busy to be shown has none.
func (r *run) pictures(number int, h *linearizability.History, found []linearizability.Violation) ([]string, error) {
	keys := make(map[string][]*linearizability.Op)
	for _, op := range h.Ops {
		if key := firstKey(op.Request); shown(op) && strings.HasPrefix(key, stagePrefix(number)) {
			keys[key] = append(keys[key], op)
		}
	}
	for key, ops := range keys { // what goes with its lease is not of porcupine's model
		if slices.ContainsFunc(ops, func(op *linearizability.Op) bool { return leased(op.Request) }) {
			delete(keys, key)
		}
	}
	key := ""
	for _, v := range found {
		for _, op := range v.Ops {
			if k := firstKey(op.Request); len(keys[k]) > 0 {
				key = k
			}
		}
	}
	if key == "" {
		key = busiest(keys)
	}
	if key == "" {
		return nil, nil
	}
	name := fmt.Sprintf("porcupine-%03d.html", number)
	return []string{name}, draw1(keys[key], filepath.Join(r.Dir, name))
}

// shown says whether an operation may have had an effect or told something. A serializable read may be old: it has no place
// in the order.
func shown(op *linearizability.Op) bool {
	switch r := op.Request.(type) {
	case *pb.RangeRequest:
		if r.Serializable {
			return false
		}
	case *followpb.FollowRequest:
		return false
	}
	return op.Outcome == linearizability.OK || op.Outcome == linearizability.Unknown && !reads(op.Request)
}

// leased says whether a request puts something with a lease.
func leased(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.PutRequest:
		return r.GetLease() != 0
	case *pb.TxnRequest:
		return slices.ContainsFunc(slices.Concat(r.GetSuccess(), r.GetFailure()), func(op *pb.RequestOp) bool {
			return leased(op.GetRequestPut()) || leased(op.GetRequestTxn())
		})
	}
	return false
}

// busiest is the key with the most operations that a picture can show.
func busiest(keys map[string][]*linearizability.Op) (best string) {
	for key, ops := range keys {
		n, most := len(ops), len(keys[best])
		if n <= pictureOps && (n > most || n == most && key < best) {
			best = key
		}
	}
	return best
}

// draw1 draws the operations on one key. The first ones are shown of a key that has too many.
func draw1(ops []*linearizability.Op, path string) error {
	var in []porcupine.Operation
	for _, op := range ops[:min(len(ops), pictureOps)] {
		end := op.Returned
		if end == 0 {
			end = math.MaxInt64
		}
		in = append(in, porcupine.Operation{ClientId: op.Client, Input: models.Input{Op: op}, Call: op.Invoked, Return: end})
	}
	model := models.KV()
	_, info := porcupine.CheckOperationsVerbose(model, in, pictureTime)
	return porcupine.VisualizePath(model, info, path)
}
