package workloads

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// bank is W4: accounts between which clients move money, in transactions that compare what they read.
type bank struct {
	prefix string
	seen   map[int]*pb.RangeResponse
	seq    int
}

const (
	accounts       = 5
	openingBalance = 100
)

func newBank(prefix string, _ int) linearizability.Workload {
	return &bank{prefix: prefix + "b/", seen: map[int]*pb.RangeResponse{}}
}

// balance encodes an amount with the number of the transfer that made it: each write has a value of its own.
func (w *bank) balance(amount int) []byte {
	w.seq++
	return fmt.Appendf(nil, "%d#%d", amount, w.seq)
}

// Setup implements linearizability.Workload: all accounts are opened at once.
func (w *bank) Setup() []proto.Message {
	t := &pb.TxnRequest{}
	for i := range accounts {
		t.Success = append(t.Success, put(w.account(i), w.balance(openingBalance)))
	}
	return []proto.Message{t}
}

func (w *bank) account(i int) string { return w.prefix + strconv.Itoa(i) }

// Next implements linearizability.Workload.
func (w *bank) Next(client int, r *base.Rand) proto.Message {
	seen := w.seen[client]
	delete(w.seen, client)
	if seen == nil || len(seen.Kvs) != accounts {
		return all(w.prefix)
	}
	from := int(r.Int63n(accounts))
	to := (from + 1 + int(r.Int63n(accounts-1))) % accounts
	have, _ := checkers.Balance(seen.Kvs[from].Value)
	there, _ := checkers.Balance(seen.Kvs[to].Value)
	amount := int(r.Int63n(20))
	if amount > have {
		return all(w.prefix)
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{unchanged(w.account(from), seen.Kvs[from].ModRevision), unchanged(w.account(to), seen.Kvs[to].ModRevision)},
		Success: []*pb.RequestOp{put(w.account(from), w.balance(have-amount)), put(w.account(to), w.balance(there+amount))},
		Failure: []*pb.RequestOp{read(all(w.prefix))},
	}
}

// Ended implements linearizability.Workload.
func (w *bank) Ended(op *linearizability.Op) {
	if op.Outcome != linearizability.OK {
		return
	}
	switch resp := op.Response.(type) {
	case *pb.RangeResponse:
		w.seen[op.Client] = resp
	case *pb.TxnResponse:
		if !resp.Succeeded {
			w.seen[op.Client] = resp.Responses[0].GetResponseRange()
		}
	}
}

// Final implements linearizability.Workload.
func (w *bank) Final() []proto.Message { return []proto.Message{all(w.prefix)} }

// Checkers implements linearizability.Workload.
func (w *bank) Checkers() []linearizability.Checker {
	return append(checkers.All(w.prefix), checkers.Bank(w.prefix, accounts, accounts*openingBalance))
}
