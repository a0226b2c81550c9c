package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

func newRangeMove(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "move",
		Short: "Move a range's replicas to just these nodes",
		Long: `Move a range's replicas to just these nodes, one guarded step at a time, while requests go on. A place
that misses more of the keyspace's constraints than the present one is not taken: it waits, and says so. When it is done nobody wants the range there any more: if the policy wants it elsewhere it is moved on. To have a keyspace
stay somewhere, give it constraints (cairn policy set).
` + waitCodes,
		Example: `  cairn range move --range r104 --to n1,n2,n4 --dry-run
  cairn range move --range r104 --to n1,n2,n4 --leader n4 --wait`,
		Args: cobra.NoArgs,
	}
	id, to, w := rangeFlag(c, e), c.Flags().StringSlice("to", nil, "the `NODES` that are to hold it, such as n1,n2,n4 (required)"), addWait(c)
	leader := c.Flags().String("leader", "", "the `NODE` of them that is to lead it; without it anyone")
	required(c, e, "to")
	_ = c.RegisterFlagCompletionFunc("leader", completer(e, listNodes)) // it exists: it was defined above
	onNode(c, e, waitTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		op := &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_RELOCATE}
		var wrongRange, wrongNodes, wrongLeader error
		op.RangeId, wrongRange = parseRange(*id)
		op.Voters, wrongNodes = parseNodes(*to)
		if *leader != "" {
			op.Leader, wrongLeader = parseNode(*leader)
		}
		if err := usageOf(wrongRange, wrongNodes, wrongLeader); err != nil {
			return err
		}
		return w.begin(ctx, e, cl, op, out)
	})
	return c
}

func newRangeTransfer(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "transfer",
		Short: "Hand a range's leadership over",
		Long: `Hand a range's leadership to a voter on another node, and return when that one leads. Requests go on. The cluster may hand it
on again when its leaders are not balanced, or preferred elsewhere (cairn policy).`,
		Example: `  cairn range transfer --range r104 --to n2
  cairn range transfer --range r104 --to n2 --dry-run`,
		Args: cobra.NoArgs,
	}
	id, to, dry := rangeFlag(c, e), c.Flags().String("to", "", "the `NODE` that is to lead (required)"), dryFlag(c)
	required(c, e, "to")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		r, wrongRange := parseRange(*id)
		n, wrongNode := parseNode(*to)
		if err := usageOf(wrongRange, wrongNode); err != nil {
			return err
		}
		resp, err := cl.TransferRange(ctx, &clusterpb.TransferRangeRequest{RangeId: r, ToNode: n, DryRun: *dry})
		if err != nil {
			return err
		}
		does := "leads"
		if *dry {
			does = "would lead"
		}
		view := map[string]any{"range": r, "from": resp.FromNode, "to": resp.ToNode, "dry_run": *dry}
		if resp.FromNode == resp.ToNode {
			return out.value(view, "n%d leads r%d already\n", n, r)
		}
		return out.value(view, "n%d %s r%d; n%d did\n", n, does, r, resp.FromNode)
	})
	return c
}

func newRangeWhy(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "why ID",
		Short: "Say what would be decided for a range now, and why",
		Long: `Say what would be decided for a range now, or why nothing: by the node that decides for it, with what is under way and what that
waits for. Every node is compared as a place for a replica, with what speaks for it and against it; a lower score is better.`,
		Example: `  cairn range why r104
  cairn range why r104 -o json | jq '.candidates[] | select(.allowed)'`,
		Args: cobra.ExactArgs(1),
	}
	complete(c, e, listRanges)
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		id, err := one(args, parseRange)
		if err != nil {
			return err
		}
		resp, err := cl.ExplainRange(ctx, &clusterpb.ExplainRangeRequest{RangeId: id})
		if err != nil {
			return err
		}
		return out.why(id, resp)
	})
	return c
}

// rangeFlag is --range, which is required.
func rangeFlag(c *cobra.Command, e env) *string {
	id := c.Flags().String("range", "", "the range's `ID` (required)")
	_ = c.MarkFlagRequired("range") // it exists
	_ = c.RegisterFlagCompletionFunc("range", completer(e, listRanges))
	return id
}

// required makes a flag that names nodes a required one.
func required(c *cobra.Command, e env, flag string) {
	_ = c.MarkFlagRequired(flag) // it exists
	_ = c.RegisterFlagCompletionFunc(flag, completer(e, listNodes))
}

// whyView is what would be decided for a range. Its JSON is an interface: fields are only ever added.
type whyView struct {
	Range      uint64          `json:"range"`
	Generation uint64          `json:"generation"`
	Decider    uint64          `json:"decider"`  // the node that was asked
	Decision   string          `json:"decision"` // empty: nothing would be done
	Reason     string          `json:"reason"`
	Goal       string          `json:"goal"`
	UnderWay   string          `json:"under_way"` // what is being done, and what it waits for
	Candidates []candidateView `json:"candidates"`
	Advice     []string        `json:"advice"`
}

type candidateView struct {
	Node     uint64   `json:"node"`
	Holds    bool     `json:"holds"`
	Allowed  bool     `json:"allowed"`
	Score    float64  `json:"score"`
	InFavour []string `json:"in_favour"`
	Against  []string `json:"against"`
}

func (p printer) why(id uint64, resp *clusterpb.ExplainRangeResponse) error {
	x := resp.Explanation
	v := whyView{Range: id, Generation: x.GetRange().GetGeneration(), Decider: resp.Decider, Decision: x.GetDecision(), Reason: x.GetReason(), Goal: x.GetGoal(),
		UnderWay: x.GetUnderWay(), Candidates: []candidateView{}, Advice: append([]string{}, x.GetAdvice()...)}
	for _, c := range x.GetCandidates() {
		v.Candidates = append(v.Candidates, candidateView{Node: c.NodeId, Holds: c.Holds, Allowed: c.Allowed, Score: c.Score,
			InFavour: append([]string{}, c.InFavour...), Against: append([]string{}, c.Against...)})
	}
	slices.SortStableFunc(v.Candidates, func(a, b candidateView) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Score, b.Score), cmp.Compare(a.Node, b.Node))
	})
	if p.json {
		return p.encode(v)
	}
	decision := cmp.Or(v.Decision, "nothing")
	if v.Goal != "" {
		decision += " (" + v.Goal + ")"
	}
	head := [][]string{{"range", fmt.Sprintf("r%d, generation %d, on %s", id, v.Generation, holders(x.GetRange()))},
		{"decided by", fmt.Sprintf("n%d", v.Decider)}, {"decision", decision}, {"because", orDash(v.Reason)}, {"under way", cmp.Or(v.UnderWay, "nothing")}}
	if err := p.rows(nil, head); err != nil {
		return err
	}
	rows := [][]string{{"NODE", "HOLDS", "MAY HOLD", "SCORE", "FOR", "AGAINST"}}
	for _, c := range v.Candidates {
		rows = append(rows, []string{fmt.Sprintf("n%d", c.Node), yesNo(c.Holds), yesNo(c.Allowed), strconv.FormatFloat(c.Score, 'f', 3, 64),
			orDash(strings.Join(c.InFavour, "; ")), orDash(strings.Join(c.Against, "; "))})
	}
	if len(v.Candidates) > 0 {
		if _, err := io.WriteString(p.w, "\n"); err != nil {
			return err
		}
		if err := p.rows(nil, rows); err != nil {
			return err
		}
	}
	for i, a := range v.Advice {
		lead := "\n"
		if i > 0 {
			lead = ""
		}
		if _, err := fmt.Fprintf(p.w, "%sdo: %s\n", lead, a); err != nil {
			return err
		}
	}
	return nil
}

// rank puts those first that hold the range, and then those that may.
func rank(c candidateView) int {
	switch {
	case c.Holds:
		return 0
	case c.Allowed:
		return 1
	}
	return 2
}

// holders lists where a range is.
func holders(d *metapb.RangeDescriptor) string {
	var ids []uint64
	for _, r := range d.GetReplicas() {
		ids = append(ids, r.NodeId)
	}
	return nodeNames(ids)
}
