package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// newRange holds the verbs for ranges.
func newRange(e env) *cobra.Command {
	c := &cobra.Command{Use: "range", Short: "List, show, split, merge and move ranges"}
	c.AddCommand(newRangeLs(e), newRangeShow(e), newRangeWhy(e), newRangeSplit(e), newRangeMerge(e), newRangeMove(e), newRangeTransfer(e))
	return c
}

func newRangeLs(e env) *cobra.Command {
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List the ranges of a keyspace, or of all",
		Long: `List the ranges of a keyspace, or of all, as the index knows them. The index follows the ranges within moments; what leads
them and how far their replicas are is shown by cairn status --ranges. The range "root", which indexes the index, is not listed.
STATE is "frozen for" another for the moment in which that one may take a range over, and "absorbing" another until that one's
replicas are gone.`,
		Example: `  cairn range ls
  cairn range ls --keyspace shards -o json | jq length`,
		Args: cobra.NoArgs,
	}
	ks := c.Flags().String("keyspace", "", "only the ranges of the keyspace `NAME`")
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{Keyspace: *ks})
		if err != nil {
			return err
		}
		return out.ranges(resp.Ranges)
	})
	return c
}

func newRangeShow(e env) *cobra.Command {
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one range",
		Example: `  cairn range show r104`,
		Args:    cobra.ExactArgs(1),
	}
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		var id uint64
		if _, err := fmt.Sscanf(strings.TrimPrefix(args[0], "r"), "%d", &id); err != nil {
			return &usageError{[]error{fmt.Errorf("%q is not the id of a range: give r104, or 104", args[0])}}
		}
		resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
		if err != nil {
			return err
		}
		for _, r := range resp.Ranges {
			if r.Descriptor_.GetRangeId() == id {
				return out.ranges([]*clusterpb.IndexedRange{r})
			}
		}
		return fmt.Errorf("the index knows no range r%d: see cairn range ls", id)
	})
	return c
}

func newRangeSplit(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "split",
		Short: "Cut a range in two at a key",
		Long: `Cut the range of a sharded keyspace that holds a key in two. The key becomes the first of the right part. Requests go
on meanwhile. Ranges are cut by themselves as they grow or get hot: by hand it is done before a load that is known to come.`,
		Example: `  cairn range split --keyspace shards --key m
  cairn range split --keyspace shards --key m --dry-run`,
		Args: cobra.NoArgs,
	}
	ks, key, dry := spotFlags(c, "the first `KEY` of the right part (required)")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.SplitRange(ctx, &clusterpb.SplitRangeRequest{Keyspace: *ks, Key: []byte(*key), DryRun: *dry})
		if err != nil {
			return err
		}
		return out.ranges([]*clusterpb.IndexedRange{{Keyspace: *ks, Descriptor_: resp.Left}, {Keyspace: *ks, Descriptor_: resp.Right}})
	})
	return c
}

func newRangeMerge(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "merge",
		Short: "Merge a range with its right neighbour",
		Long: `Have the range of a sharded keyspace that holds a key take over its right neighbour. Both take no requests for a few
round trips; the neighbour's replicas are moved to the same nodes first if they are on others. Small neighbours that nobody writes
to are merged by themselves; ranges that were cut by hand are merged by hand alone.`,
		Example: `  cairn range merge --keyspace shards --key m
  cairn range merge --keyspace shards --key m --dry-run`,
		Args: cobra.NoArgs,
	}
	ks, key, dry := spotFlags(c, "a `KEY` of the left one of the two (required)")
	onNode(c, e, mergeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.MergeRange(ctx, &clusterpb.MergeRangeRequest{Keyspace: *ks, Key: []byte(*key), DryRun: *dry})
		if err != nil {
			return err
		}
		return out.ranges([]*clusterpb.IndexedRange{{Keyspace: *ks, Descriptor_: resp.Merged}})
	})
	return c
}

// mergeTimeout leaves time for replicas to be moved.
const mergeTimeout = 2 * time.Minute

// spotFlags are those of a verb that changes the range which holds a key.
func spotFlags(c *cobra.Command, aboutKey string) (ks, key *string, dry *bool) {
	ks = c.Flags().String("keyspace", "", "the keyspace's `NAME` (required)")
	key = c.Flags().String("key", "", aboutKey)
	dry = c.Flags().Bool("dry-run", false, "show what would be done, and do nothing")
	_ = c.MarkFlagRequired("keyspace") // they exist: they were defined above
	_ = c.MarkFlagRequired("key")
	return ks, key, dry
}

// indexedView is a range as the index knows it. Its JSON is an interface: fields are only ever added.
type indexedView struct {
	ID         uint64         `json:"id"` // 0: it would be made
	Keyspace   string         `json:"keyspace"`
	Start      string         `json:"start"` // bytes that cannot be printed are escaped as in Go: \x00
	End        string         `json:"end"`   // empty: to the keyspace's end
	Generation uint64         `json:"generation"`
	FrozenFor  uint64         `json:"frozen_for,omitempty"` // the range that may take this one over at any moment: it takes no requests
	Absorbing  uint64         `json:"absorbing,omitempty"`  // the range that this one has taken over, whose replicas are not gone yet
	Replicas   []replicaPlace `json:"replicas"`
}

// state says which step of a merge the range is in.
func (v *indexedView) state() string {
	switch {
	case v.FrozenFor != 0:
		return fmt.Sprintf("frozen for r%d", v.FrozenFor)
	case v.Absorbing != 0:
		return fmt.Sprintf("absorbing r%d", v.Absorbing)
	}
	return "-"
}

type replicaPlace struct {
	Node    uint64 `json:"node"`
	Replica uint64 `json:"replica"`
	Role    string `json:"role"`
}

func (p printer) ranges(rs []*clusterpb.IndexedRange) error {
	views := []indexedView{}
	rows := [][]string{{"RANGE", "KEYSPACE", "START", "END", "GENERATION", "STATE", "REPLICAS"}}
	for _, r := range rs {
		d := r.Descriptor_
		v := indexedView{ID: d.GetRangeId(), Keyspace: r.Keyspace, Start: keyString(d.GetStart()), End: keyString(d.GetEnd()),
			Generation: d.GetGeneration(), FrozenFor: d.GetFrozen().GetIntoRangeId(), Absorbing: d.GetAbsorbing(), Replicas: []replicaPlace{}}
		name := fmt.Sprintf("r%d", v.ID)
		if base.RangeID(v.ID) == ^base.RangeID(0) {
			v.ID, name = 0, "(new)"
		}
		var places []string
		for _, rep := range d.GetReplicas() {
			role := enumString("REPLICA_ROLE_", rep.Role.String())
			v.Replicas = append(v.Replicas, replicaPlace{Node: rep.NodeId, Replica: rep.ReplicaId, Role: role})
			place := fmt.Sprintf("n%d", rep.NodeId)
			if rep.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
				place += "(" + role + ")"
			}
			places = append(places, place)
		}
		views = append(views, v)
		rows = append(rows, []string{name, v.Keyspace, orDash(v.Start), orDash(v.End), fmt.Sprint(v.Generation), v.state(), strings.Join(places, " ")})
	}
	return p.rows(views, rows)
}
