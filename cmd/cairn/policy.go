package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/policy"
)

// newPolicy holds the verbs for policies.
func newPolicy(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "See and set how the cluster is looked after",
		Long: `See and set how the cluster is looked after: how many replicas a range has and where, when a node is given up, how much is moved at
once. A keyspace may have its own placement; what it leaves open is the cluster's.`,
	}
	c.AddCommand(newPolicyShow(e), newPolicySet(e))
	return c
}

func newPolicyShow(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Show a policy",
		Long:  `Show a policy: each key, its value, and whether somebody set it here.`,
		Example: `  cairn policy show
  cairn policy show --keyspace shards
  cairn policy show -o json | jq -r .values.failed_after.value`,
		Args: cobra.NoArgs,
	}
	ks := c.Flags().String("keyspace", "", "of the keyspace `NAME`: one that somebody made, default, or Cairn's own root, meta, sys")
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.GetPolicy(ctx, &clusterpb.GetPolicyRequest{Keyspace: *ks})
		if err != nil {
			return err
		}
		return out.policy(*ks, resp.Stored, resp.Effective)
	})
	return c
}

func newPolicySet(e env) *cobra.Command {
	var keys strings.Builder
	for _, k := range policy.Keys() {
		own := ""
		if k.Own {
			own = " (a keyspace may have its own)"
		}
		fmt.Fprintf(&keys, "  %-17s %s%s\n  %-17s   %s\n", k.Name, k.About, own, "", k.Takes)
	}
	c := &cobra.Command{
		Use:   "set KEY=VALUE…",
		Short: "Change a policy",
		Long: `Change a policy; the value default takes a key back. All keys of one command are set at once, or none.

` + keys.String() + `
A constraint is + (required), - (forbidden) or ~ (preferred), then a tier of the locality (region=eu) or an attribute (ssd), and of how
many replicas it speaks (:2; without it of all). What the nodes that there are can never satisfy is refused, with what they could;
what they satisfy only in part is a warning.`,
		Example: `  cairn policy set failed_after=10m snapshot_rate=32MiB
  cairn policy set --keyspace shards replicas=5 constraints=+region=eu:3,-zone=a,~ssd --dry-run
  cairn policy set --keyspace shards constraints=default`,
		Args: cobra.MinimumNArgs(1),
	}
	ks := c.Flags().String("keyspace", "", "of the keyspace `NAME`; without it the cluster's")
	dry := dryFlag(c)
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		now, err := cl.GetPolicy(ctx, &clusterpb.GetPolicyRequest{Keyspace: *ks})
		if err != nil {
			return err
		}
		p := proto.CloneOf(now.Stored)
		var problems []error
		for _, a := range args {
			problems = append(problems, policy.Set(p, a))
		}
		if err := usageOf(problems...); err != nil {
			return err
		}
		resp, err := cl.SetPolicy(ctx, &clusterpb.SetPolicyRequest{Keyspace: *ks, Policy: p, DryRun: *dry})
		if err != nil {
			return err
		}
		for _, w := range resp.Warnings {
			fmt.Fprintf(e.err, "warning: %s\n", w)
		}
		return out.policyChange(*ks, now.Stored, resp.Policy, resp.Warnings, *dry)
	})
	return c
}

// policyView is a policy, as it is printed. Its JSON is an interface: fields are only ever added.
type policyView struct {
	Keyspace   string               `json:"keyspace"` // empty: the cluster's
	Generation uint64               `json:"generation"`
	Values     map[string]policyKey `json:"values"`
}

type policyKey struct {
	Value string `json:"value"`
	Set   bool   `json:"set"` // somebody set it here
}

func (p printer) policy(ks string, stored, effective *metapb.PolicyRecord) error {
	v := policyView{Keyspace: ks, Generation: stored.GetGeneration(), Values: map[string]policyKey{}}
	rows := [][]string{{"KEY", "VALUE", "SET", "WHAT"}}
	for _, k := range policy.Keys() {
		if ks != "" && !k.Own {
			continue
		}
		set := k.Get(stored) != k.Get(&metapb.PolicyRecord{})
		value := k.Get(effective)
		if value == "default" { // there is none
			value = ""
		}
		v.Values[k.Name] = policyKey{value, set}
		rows = append(rows, []string{k.Name, orDash(value), yesNo(set), k.About})
	}
	return p.rows(v, rows)
}

// policyChangeView is what a change made of a policy. Its JSON is an interface: fields are only ever added.
type policyChangeView struct {
	Keyspace   string              `json:"keyspace"`
	Generation uint64              `json:"generation"`
	Changed    map[string][]string `json:"changed"` // of each key, the value before and after
	Warnings   []string            `json:"warnings"`
	DryRun     bool                `json:"dry_run"`
}

func (p printer) policyChange(ks string, before, after *metapb.PolicyRecord, warnings []string, dry bool) error {
	v := policyChangeView{Keyspace: ks, Generation: after.GetGeneration(), Changed: map[string][]string{}, Warnings: append([]string{}, warnings...), DryRun: dry}
	var b strings.Builder
	for _, k := range policy.Keys() {
		if old, now := k.Get(before), k.Get(after); old != now {
			v.Changed[k.Name] = []string{old, now}
			fmt.Fprintf(&b, "%s: %s, was %s\n", k.Name, now, old)
		}
	}
	if p.json {
		return p.encode(v)
	}
	switch {
	case len(v.Changed) == 0:
		b.WriteString("it is so already\n")
	case dry:
		b.WriteString("nothing was changed: this is what would be\n")
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}
