package store

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// What planted mistakes (internal/mutant) do that takes more than the place where they are planted. Without the build tag
// nothing of it is in the program.

// decideEarly evaluates the comparisons of a proposed transaction on what is applied here now, and leaves it no others.
func (s *Store) decideEarly(p *raftgroup.Proposal) {
	cmd, txn, out := &kvpb.Command{}, &pb.TxnRequest{}, &pb.TxnResponse{}
	if proto.Unmarshal(p.Data, cmd) != nil || cmd.GetTxn() == nil || proto.Unmarshal(cmd.GetTxn(), txn) != nil {
		return
	}
	if s.Read(p.Range, &pb.TxnRequest{Compare: txn.Compare}, out) != nil {
		return
	}
	txn.Compare = nil
	if !out.Succeeded {
		txn.Compare = []*pb.Compare{{Target: pb.Compare_VERSION, Result: pb.Compare_LESS, Key: []byte("never below 0")}}
	}
	if raw, err := proto.Marshal(txn); err == nil {
		cmd.Body = &kvpb.Command_Txn{Txn: raw}
		if raw, err = proto.Marshal(cmd); err == nil {
			p.Data = raw
		}
	}
}

// hardStatesLater takes the HardStates out of what is written with entries, and returns what writes them by themselves.
func (w *worker) hardStatesLater(appends []raftgroup.Append) (rest []raftgroup.Append, late func() error) {
	rest = slices.Clone(appends)
	var hard []raftgroup.Append
	for i := range rest {
		if a := &rest[i]; a.HardState != nil && len(a.Entries) > 0 {
			hard = append(hard, raftgroup.Append{Range: a.Range, HardState: a.HardState})
			a.HardState = nil
		}
	}
	return rest, func() error {
		b := w.s.eng.NewBatch()
		defer b.Close()
		if _, err := w.appender.write(b, hard); err != nil {
			return err
		}
		return b.CommitNoSync()
	}
}

// withoutDoubt makes of an outcome that is not known a failure.
func withoutDoubt(err error) error {
	var ambiguous *base.Ambiguous
	if errors.As(err, &ambiguous) {
		return errors.New("the write failed")
	}
	return err
}
