package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/operation"
)

// newOp holds the verbs for operations.
func newOp(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "op",
		Short: "See, watch, pause and cancel what was asked of the cluster",
		Long: `See, watch, pause and cancel what was asked of the cluster: drains, decommissions, ranges that are moved by hand, and holds
(cairn node drain, decommission, safe-to-stop --hold; cairn range move). An operation is a record: it goes on whichever node dies, and
ends when the stored descriptors say that nothing is left of it. One that does not go on says what it waits for.`,
	}
	c.AddCommand(newOpLs(e), newOpShow(e), newOpWatch(e),
		newOpChange(e, "cancel", clusterpb.OperationChange_OPERATION_CHANGE_CANCEL, "End an operation and take back what it made of its nodes",
			`End an operation and take back what it made of its nodes: those that were drained may lead again, those that were leaving stay. What
was moved already stays where it is. A node that had left already has left for good.`),
		newOpChange(e, "pause", clusterpb.OperationChange_OPERATION_CHANGE_PAUSE, "Stop an operation until it is resumed",
			`Stop an operation until it is resumed. Its nodes keep what they have, and are given nothing new meanwhile.`),
		newOpChange(e, "resume", clusterpb.OperationChange_OPERATION_CHANGE_RESUME, "Have an operation that was paused go on",
			`Have an operation that was paused go on.`))
	return c
}

func newOpLs(e env) *cobra.Command {
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List the operations that go on",
		Long: `List the operations that go on; with --all those that have ended, too. DONE counts replicas, or leaders of a drain, by what the
stored descriptors say.`,
		Example: `  cairn op ls
  cairn op ls --all -o json | jq '.[] | select(.state == "failed")'`,
		Args: cobra.NoArgs,
	}
	all := c.Flags().Bool("all", false, "those that have ended, too")
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.ListOperations(ctx, &clusterpb.ListOperationsRequest{Ended: *all})
		if err != nil {
			return err
		}
		return out.operations(resp.Operations)
	})
	return c
}

func newOpShow(e env) *cobra.Command {
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one operation",
		Example: `  cairn op show 7`,
		Args:    cobra.ExactArgs(1),
	}
	complete(c, e, listOperations)
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		id, err := one(args, parseOperation)
		if err != nil {
			return err
		}
		resp, err := cl.ListOperations(ctx, &clusterpb.ListOperationsRequest{OpId: id})
		if err != nil {
			return err
		}
		return out.operation(resp.Operations[0])
	})
	return c
}

func newOpChange(e env, verb string, change clusterpb.OperationChange, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " ID", Short: short, Long: long,
		Example: fmt.Sprintf("  cairn op %s 7\n  cairn op %[1]s 7 --dry-run", verb),
		Args:    cobra.ExactArgs(1),
	}
	complete(c, e, listOperations)
	dry := dryFlag(c)
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		id, err := one(args, parseOperation)
		if err != nil {
			return err
		}
		resp, err := cl.ChangeOperation(ctx, &clusterpb.ChangeOperationRequest{OpId: id, Change: change, DryRun: *dry})
		if err != nil {
			return err
		}
		return out.operation(resp.Operation)
	})
	return c
}

func newOpWatch(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "watch ID",
		Short: "Watch an operation until it has ended",
		Long: `Watch an operation until it has ended: with a bar on a terminal, and else a line for each change, on the standard error. At the end
it is printed as by cairn op show.
` + waitCodes,
		Example: `  cairn op watch 7
  cairn op watch 7 --timeout 10m || echo "it goes on"`,
		Args: cobra.ExactArgs(1),
	}
	complete(c, e, listOperations)
	limit := c.Flags().Duration("timeout", 0, "watch for as long as `TIME` at most; 0: until it has ended")
	onNode(c, e, waitTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		id, err := one(args, parseOperation)
		if err != nil {
			return err
		}
		return waitFor(ctx, e, cl, id, *limit, out)
	})
	return c
}

func dryFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("dry-run", false, "show what would be done, and do nothing")
}

// opView is an operation, as it is printed. Its JSON is an interface: fields are only ever added.
type opView struct {
	ID         uint64   `json:"id"` // 0: it would be begun
	Kind       string   `json:"kind"`
	State      string   `json:"state"`
	Nodes      []uint64 `json:"nodes"`
	Range      uint64   `json:"range,omitempty"`
	Voters     []uint64 `json:"voters,omitempty"`
	Leader     uint64   `json:"leader,omitempty"`
	Total      uint64   `json:"total"` // replicas, or leaders of a drain
	Left       uint64   `json:"left"`
	BytesTotal uint64   `json:"bytes_total"`
	BytesLeft  uint64   `json:"bytes_left"`
	Estimate   float64  `json:"estimate_seconds"` // 0: not known
	Waiting    string   `json:"waiting"`          // why it does not go on; empty: it does
	Outcome    string   `json:"outcome"`          // once it has ended
	Created    string   `json:"created"`
	Changed    string   `json:"changed"`
	Until      string   `json:"until,omitempty"` // of a hold
}

func toOpView(op *metapb.Operation) opView {
	return opView{ID: op.OpId, Kind: operation.Kind(op.Kind), State: operation.State(op.State), Nodes: append([]uint64{}, op.Nodes...), Range: op.RangeId,
		Voters: op.Voters, Leader: op.Leader, Total: op.Total, Left: op.Left, BytesTotal: op.BytesTotal, BytesLeft: op.BytesLeft,
		Estimate: float64(op.EstimateMicros) / 1e6, Waiting: op.Waiting, Outcome: op.Outcome,
		Created: clockTime(op.CreatedUnixMicros), Changed: clockTime(op.ChangedUnixMicros), Until: clockTime(op.UntilUnixMicros)}
}

// clockTime is a time as it is shown; empty: none.
func clockTime(unixMicros int64) string {
	if unixMicros == 0 {
		return ""
	}
	return time.UnixMicro(unixMicros).UTC().Format(time.RFC3339)
}

// says is what of an operation matters most now.
func (v *opView) says() string {
	switch {
	case v.Outcome != "":
		return v.Outcome
	case v.Until != "":
		return "until " + v.Until
	}
	return orDash(v.Waiting)
}

func (v *opView) done() string {
	if v.Total == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", v.Total-v.Left, v.Total)
}

func (v *opView) estimate() string {
	if v.Estimate == 0 {
		return "-"
	}
	return time.Duration(v.Estimate * float64(time.Second)).Round(time.Second).String()
}

func opName(op *metapb.Operation) string {
	if op.OpId == 0 {
		return "(new)"
	}
	return fmt.Sprint(op.OpId)
}

func (p printer) operations(ops []*metapb.Operation) error {
	views := []opView{}
	rows := [][]string{{"OP", "WHAT", "STATE", "DONE", "ESTIMATE", "SAYS"}}
	for _, op := range ops {
		v := toOpView(op)
		views = append(views, v)
		rows = append(rows, []string{opName(op), operation.Describe(op), v.State, v.done(), v.estimate(), v.says()})
	}
	return p.rows(views, rows)
}

// operation prints one, a line for each thing that there is to say.
func (p printer) operation(op *metapb.Operation) error {
	v := toOpView(op)
	rows := [][]string{{"operation", opName(op)}, {"what", operation.Describe(op)}, {"state", v.State}}
	add := func(name, value string) {
		if value != "" && value != "-" {
			rows = append(rows, []string{name, value})
		}
	}
	add("done", v.done())
	if v.BytesLeft > 0 {
		add("bytes", fmt.Sprintf("%s of %s are left", byteCount(v.BytesLeft), byteCount(v.BytesTotal)))
	}
	add("estimate", v.estimate())
	add("says", v.Waiting)
	add("outcome", v.Outcome)
	add("begun", v.Created)
	add("changed", v.Changed)
	add("until", v.Until)
	return p.rows(v, rows)
}
