package workloads

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// spreadBank is W4 in a keyspace of many ranges: several banks, each of which is to be in one range.
type spreadBank struct {
	prefix string
	banks  []*bank
	at     map[int]int // which bank each client goes to
}

func newSpreadBank(prefix string, _ int) linearizability.Workload {
	w := &spreadBank{prefix: prefix + "b/", at: map[int]int{}}
	for i := range spreadGroups {
		w.banks = append(w.banks, newBank(fmt.Sprintf("%s%d/", w.prefix, i), 0).(*bank))
	}
	return w
}

// Setup implements linearizability.Workload.
func (w *spreadBank) Setup() (out []proto.Message) {
	for _, b := range w.banks {
		out = append(out, b.Setup()...)
	}
	return out
}

// stays is how many requests in the mean a client makes at one bank before it goes to another.
const stays = 6

// Next implements linearizability.Workload.
func (w *spreadBank) Next(client int, r *base.Rand) proto.Message {
	if _, ok := w.at[client]; !ok || r.Int63n(stays) == 0 {
		w.at[client] = int(r.Int63n(int64(len(w.banks))))
	}
	return w.banks[w.at[client]].Next(client, r)
}

// Ended implements linearizability.Workload.
func (w *spreadBank) Ended(op *linearizability.Op) {
	if i, ok := w.at[op.Client]; ok {
		w.banks[i].Ended(op)
	}
}

// Final implements linearizability.Workload.
func (w *spreadBank) Final() (out []proto.Message) {
	for _, b := range w.banks {
		out = append(out, b.Final()...)
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *spreadBank) Checkers() []linearizability.Checker {
	out := checkers.Apart(w.prefix, false)
	for _, b := range w.banks {
		out = append(out, checkers.Bank(b.prefix, accounts, accounts*openingBalance))
	}
	return out
}
