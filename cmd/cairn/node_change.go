package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// exitUnsafe is what cairn node safe-to-stop answers its caller with if the nodes cannot be stopped.
const exitUnsafe = 3

// nodeChanges are the verbs that change what nodes are for.
func nodeChanges(e env) []*cobra.Command {
	return []*cobra.Command{
		newNodeMark(e, "cordon", clusterpb.NodeChange_NODE_CHANGE_CORDON, "Give nodes nothing new",
			`Give nodes nothing new: no replica, and no leadership. What they have stays with them. It holds until cairn node uncordon.`),
		newNodeMark(e, "uncordon", clusterpb.NodeChange_NODE_CHANGE_UNCORDON, "Take a cordon, or a drain, back",
			`Take a cordon, or a drain, back: the nodes may be given replicas again, and lead. A drain of theirs that goes on is ended for them.`),
		newNodeOperation(e, "drain", metapb.OperationKind_OPERATION_KIND_DRAIN, "Have nodes lead nothing",
			`Have nodes lead nothing, and give them nothing new: before they are stopped for a short while. Clients notice nothing. What they
hold stays with them. It holds until cairn node uncordon.

It is refused if some range could then have no leader.`),
		newNodeOperation(e, "decommission", metapb.OperationKind_OPERATION_KIND_DECOMMISSION, "Empty nodes, and let them leave for good",
			`Empty nodes, and let them leave for good: all that they hold is moved to others, a few replicas at a time (cairn policy), while
clients go on. When the stored descriptors list nothing on them any more they have left: they can be stopped, and their stores deleted.
Until then it can be taken back with cairn op cancel, or cairn node recommission.

It is refused if the others cannot take what they hold: too few are left, a constraint needs them, or there is no room.`),
		newNodeMark(e, "recommission", clusterpb.NodeChange_NODE_CHANGE_RECOMMISSION, "Keep nodes that are being decommissioned",
			`Keep nodes that are being decommissioned. What was moved away stays where it is. A node that has left has left for good.`),
		newNodeRm(e),
		newSafeToStop(e),
	}
}

func newNodeMark(e env, verb string, change clusterpb.NodeChange, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " NODE…", Short: short, Long: long,
		Example: fmt.Sprintf("  cairn node %s n3\n  cairn node %[1]s n3 n4 --dry-run", verb),
		Args:    cobra.MinimumNArgs(1),
	}
	complete(c, e, listNodes)
	dry := dryFlag(c)
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		return changeNodes(ctx, cl, args, change, *dry, out)
	})
	return c
}

// changeNodes changes one node after the other, and prints those that were changed even if one is refused.
func changeNodes(ctx context.Context, cl clusterpb.ClusterClient, args []string, change clusterpb.NodeChange, dry bool, out printer) error {
	ids, err := parseNodes(args)
	if err != nil {
		return err
	}
	var recs []*metapb.NodeRecord
	for _, id := range ids {
		resp, err := cl.ChangeNode(ctx, &clusterpb.ChangeNodeRequest{NodeId: id, Change: change, DryRun: dry})
		if err != nil {
			if len(recs) > 0 {
				err = errors.Join(out.marks(recs), err)
			}
			return err
		}
		recs = append(recs, resp.Record)
	}
	return out.marks(recs)
}

func newNodeRm(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "rm NODE",
		Short: "End the record of a node that is dead for good",
		Long: `End the record of a node that is dead for good. It can never come back under its id: what it held is replaced at once, and if its
store appears again it serves nothing and says why. A node that lives is decommissioned instead (cairn node decommission).

It is refused while the node lives, and while some range needs it: one most of whose voters are gone can only be had back with the
nodes that hold them.`,
		Example: `  cairn node rm n3 --dry-run
  cairn node rm n3 --yes-it-is-dead n3`,
		Args: cobra.ExactArgs(1),
	}
	complete(c, e, listNodes)
	dry := dryFlag(c)
	sure := c.Flags().String("yes-it-is-dead", "", "the `NODE` again: this cannot be taken back")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		id, err := one(args, parseNode)
		if err != nil {
			return err
		}
		if again, err := parseNode(*sure); !*dry && (err != nil || again != id) {
			return &usageError{[]error{fmt.Errorf("n%d can never come back after this: say that it is meant with --yes-it-is-dead n%[1]d", id)}}
		}
		return changeNodes(ctx, cl, args, clusterpb.NodeChange_NODE_CHANGE_REMOVE, *dry, out)
	})
	return c
}

func newNodeOperation(e env, verb string, kind metapb.OperationKind, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " NODE…", Short: short, Long: long + "\n" + waitCodes,
		Example: fmt.Sprintf("  cairn node %s n3 --dry-run\n  cairn node %[1]s n3 n4 --wait\n  cairn node %[1]s n3 --wait --timeout 10m", verb),
		Args:    cobra.MinimumNArgs(1),
	}
	complete(c, e, listNodes)
	w := addWait(c)
	onNode(c, e, waitTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		ids, err := parseNodes(args)
		if err != nil {
			return err
		}
		return w.begin(ctx, e, cl, &metapb.Operation{Kind: kind, Nodes: ids}, out)
	})
	return c
}

func newSafeToStop(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "safe-to-stop NODE…",
		Short: "Say whether nodes can be stopped at once",
		Long: `Say whether nodes can be stopped, all of those named at once: whether every range, Cairn's own too, then keeps a majority and what
its constraints ask for, and whether the others have room for what is replaced if they stay away. Nodes that are down now, and those
that somebody else holds, count as stopped.

With --hold the answer, if it is yes, is kept true for a while: the nodes are given nothing new, what they hold is not replaced while
they are away, and they count as stopped for whoever asks next. The hold ends by itself, or with cairn op cancel.

It exits with 0 if they can be stopped, and with 3 if not.`,
		Example: `  cairn node safe-to-stop n3
  cairn node safe-to-stop n1 n4 --hold 1h && systemctl --host n1 stop cairn`,
		Args: cobra.MinimumNArgs(1),
	}
	complete(c, e, listNodes)
	hold := c.Flags().Duration("hold", 0, "keep the answer true for as long as `TIME`")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		ids, err := parseNodes(args)
		if *hold < 0 {
			err = usageOf(err, fmt.Errorf("--hold %s is not a time to come: give one such as 1h", *hold))
		}
		if err != nil {
			return err
		}
		resp, err := cl.SafeToStop(ctx, &clusterpb.SafeToStopRequest{NodeIds: ids, HoldMicros: uint64(hold.Microseconds())})
		if err != nil {
			return err
		}
		if err := out.safe(ids, resp, *hold); err != nil {
			return err
		}
		if !resp.Safe {
			return &exitError{exitUnsafe, fmt.Sprintf("%s cannot be stopped now", nodeNames(ids))}
		}
		return nil
	})
	return c
}

// markView is what a node is for. Its JSON is an interface: fields are only ever added.
type markView struct {
	ID       uint64 `json:"id"`
	State    string `json:"state"`
	Cordoned bool   `json:"cordoned"`
	Draining bool   `json:"draining"`
	Epoch    uint64 `json:"epoch"`
	Reason   string `json:"reason"`
}

func (p printer) marks(recs []*metapb.NodeRecord) error {
	views := []markView{}
	rows := [][]string{{"NODE", "STATE", "CORDONED", "DRAINING", "REASON"}}
	for _, r := range recs {
		v := markView{ID: r.NodeId, State: enumString("NODE_STATE_", r.State.String()), Cordoned: r.Cordoned, Draining: r.Draining, Epoch: r.Epoch, Reason: r.Reason}
		views = append(views, v)
		rows = append(rows, []string{fmt.Sprintf("n%d", v.ID), v.State, yesNo(v.Cordoned), yesNo(v.Draining), orDash(v.Reason)})
	}
	return p.rows(views, rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// safeView is the answer to safe-to-stop. Its JSON is an interface: fields are only ever added.
type safeView struct {
	Nodes    []uint64   `json:"nodes"`
	Safe     bool       `json:"safe"`
	Ranges   uint64     `json:"ranges"` // that were looked at
	Hold     uint64     `json:"hold_op,omitempty"`
	Findings []stopView `json:"findings"`
}

type stopView struct {
	Range    uint64 `json:"range"` // 0: of no one range
	Keyspace string `json:"keyspace"`
	What     string `json:"what"`
	Next     string `json:"next"`
}

func (p printer) safe(ids []uint64, resp *clusterpb.SafeToStopResponse, hold time.Duration) error {
	v := safeView{Nodes: ids, Safe: resp.Safe, Ranges: resp.Ranges, Hold: resp.HoldOpId, Findings: []stopView{}}
	var b strings.Builder
	for _, f := range resp.Findings {
		v.Findings = append(v.Findings, stopView{Range: f.RangeId, Keyspace: f.Keyspace, What: f.What, Next: f.Next})
		if at := place(f.RangeId, f.Keyspace, 0); at != "" {
			b.WriteString(at + ": ")
		}
		b.WriteString(f.What + "\n")
		if f.Next != "" {
			b.WriteString("  do: " + f.Next + "\n")
		}
	}
	if p.json {
		return p.encode(v)
	}
	fmt.Fprintf(&b, "looked at %s\n", count(int(resp.Ranges), "range", "ranges"))
	if resp.Safe {
		fmt.Fprintf(&b, "%s can be stopped at once\n", nodeNames(ids))
	}
	if resp.HoldOpId != 0 {
		fmt.Fprintf(&b, "held for %s by operation %d: end that with cairn op cancel %[2]d when they are back\n", hold, resp.HoldOpId)
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}
