package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

func newDebugSupport(e env) *cobra.Command {
	return newSupportMatrix(e, &cobra.Command{
		Use:   "support",
		Short: "Show which nodes support which",
		Example: `  cairn debug support
  cairn debug support -o json | jq '.[] | select(.left_micros <= 0)'`,
	})
}

// newSupportMatrix is the verb under both of its names: who hears whom is who supports whom.
func newSupportMatrix(e env, c *cobra.Command) *cobra.Command {
	c.Args = cobra.NoArgs
	c.Long = `Show which nodes support which. Leases rest on it: a leader answers reads alone while a majority of its range's
nodes supports its node. A row is a node that promises, a column one that is promised to:

  182ms  the promise holds for as long as the column's node knows
  yes    the row's node promises, and the column's does not know of it (it does not answer, or hears nothing)
  no     nothing is promised: the row's node does not hear of the column's, or the column's disk is stuck
  ?      neither node answers
  -      the two share no range`
	host := addHost(c, e)
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return &usageError{[]error{fmt.Errorf("-o %s is not known: give table or json", *output)}}
		}
		ctx, cancel := context.WithTimeout(c.Context(), statusTimeout)
		defer cancel()
		conn, err := host.dial()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		resp, err := clusterpb.NewClusterClient(conn).Status(ctx, &clusterpb.StatusRequest{})
		if err != nil {
			return host.explain(strings.TrimPrefix(c.CommandPath(), "cairn "), err)
		}
		if *output == "json" {
			enc := json.NewEncoder(e.out)
			enc.SetIndent("", "  ")
			return enc.Encode(supportPairs(resp))
		}
		w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
		for _, row := range supportMatrix(resp) {
			if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	return c
}

// supportPair is one node's support for another. Its JSON is an interface: fields are only ever added.
type supportPair struct {
	Supporter  uint64 `json:"supporter"`
	Requester  uint64 `json:"requester"`
	Promised   *bool  `json:"promised"`    // as the supporter says; null: it does not answer
	LeftMicros *int64 `json:"left_micros"` // as the requester knows; null: it does not answer
}

// supportPairs lists the pairs of nodes that share a range, as far as any of the two answers.
func supportPairs(s *clusterpb.StatusResponse) []supportPair {
	type key struct{ supporter, requester uint64 }
	at := map[key]int{}
	out := []supportPair{}
	find := func(supporter, requester uint64) *supportPair {
		k := key{supporter, requester}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, supportPair{Supporter: supporter, Requester: requester})
		}
		return &out[i]
	}
	for _, n := range s.Nodes {
		for _, e := range n.Supports {
			find(n.Node.NodeId, e.Node).Promised = &e.Promised
			find(e.Node, n.Node.NodeId).LeftMicros = &e.LeftMicros
		}
	}
	return out
}

// supportMatrix is the same for people: who promises in the rows, who is promised to in the columns.
func supportMatrix(s *clusterpb.StatusResponse) [][]string {
	pairs := map[[2]uint64]supportPair{}
	for _, p := range supportPairs(s) {
		pairs[[2]uint64{p.Supporter, p.Requester}] = p
	}
	rows := [][]string{{"SUPPORTER"}}
	for _, n := range s.Nodes {
		rows[0] = append(rows[0], fmt.Sprintf("n%d", n.Node.NodeId))
	}
	for _, a := range s.Nodes {
		row := []string{fmt.Sprintf("n%d", a.Node.NodeId)}
		for _, b := range s.Nodes {
			p, ok := pairs[[2]uint64{a.Node.NodeId, b.Node.NodeId}]
			row = append(row, supportCell(p, ok, a == b, a.Reachable || b.Reachable))
		}
		rows = append(rows, row)
	}
	return rows
}

func supportCell(p supportPair, known, self, answered bool) string {
	switch {
	case self:
		return "-"
	case p.LeftMicros != nil && *p.LeftMicros > 0:
		return (time.Duration(*p.LeftMicros) * time.Microsecond).Round(time.Millisecond).String()
	case p.Promised != nil && *p.Promised:
		return "yes"
	case known:
		return "no"
	case answered:
		return "-"
	}
	return "?"
}
