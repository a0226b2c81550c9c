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

// changeTimeout bounds a verb that changes something in a few steps.
const changeTimeout = 30 * time.Second

// newKeyspace holds the verbs for keyspaces.
func newKeyspace(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "keyspace",
		Short: "Make, list and drop keyspaces",
		Long: `Make, list and drop keyspaces. A keyspace is a named map from keys to values of its own. A single one is what etcd's
clients know: one range, revisions that count 1, 2, 3, …. A sharded one is cut into ranges as it grows, so that it is as large and
as fast as the cluster; its revisions only grow (they are microseconds since the cluster was made), and a transaction must lie in
one of its ranges.

An etcd client chooses a keyspace with the gRPC metadata cairn-keyspace, or by an address that is bound to one
(cairn start --listen-keyspace). Without either it is in "default", which is single.`,
	}
	c.AddCommand(newKeyspaceCreate(e), newKeyspaceLs(e), newKeyspaceDrop(e))
	return c
}

func newKeyspaceCreate(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a keyspace",
		Long: `Make a keyspace, and return when it can be used. If it was broken off before, it goes on from there.
A name is a small letter, and then at most 62 small letters, digits, - or _.`,
		Example: `  cairn keyspace create shards --sharded
  cairn keyspace create config --single`,
		Args: cobra.ExactArgs(1),
	}
	single := c.Flags().Bool("single", false, "one range for ever, with etcd's revisions")
	sharded := c.Flags().Bool("sharded", false, "cut into ranges as it grows")
	c.MarkFlagsMutuallyExclusive("single", "sharded")
	c.MarkFlagsOneRequired("single", "sharded")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		_ = sharded // the other of the two
		resp, err := cl.CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: args[0], Single: *single})
		if err != nil {
			return err
		}
		return out.keyspaces([]*metapb.KeyspaceRecord{resp.Keyspace})
	})
	return c
}

func newKeyspaceLs(e env) *cobra.Command {
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List the keyspaces",
		Example: `  cairn keyspace ls
  cairn keyspace ls -o json | jq '.[].name'`,
		Args: cobra.NoArgs,
	}
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.ListKeyspaces(ctx, &clusterpb.ListKeyspacesRequest{})
		if err != nil {
			return err
		}
		first := &metapb.KeyspaceRecord{KeyspaceId: uint64(base.KeyspaceDefault), Name: base.KeyspaceDefault.String(), Single: true,
			State: metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE}
		return out.keyspaces(append([]*metapb.KeyspaceRecord{first}, resp.Keyspaces...))
	})
	return c
}

func newKeyspaceDrop(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "drop NAME",
		Short: "Delete a keyspace and all that is in it",
		Long: `Delete a keyspace and all that is in it. It cannot be undone, so the name is to be given twice. If it was broken off
before, it goes on from there. Nodes that are away delete what they have of it when they are back.`,
		Example: `  cairn keyspace drop shards --yes-delete-all-of shards`,
		Args:    cobra.ExactArgs(1),
	}
	sure := c.Flags().String("yes-delete-all-of", "", "the `NAME` again")
	onNode(c, e, changeTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error {
		if *sure != args[0] {
			return &usageError{[]error{fmt.Errorf("all that is in %s is to be deleted for good: say so with --yes-delete-all-of %[1]s", args[0])}}
		}
		resp, err := cl.DropKeyspace(ctx, &clusterpb.DropKeyspaceRequest{Name: args[0]})
		if err != nil {
			return err
		}
		return out.value(map[string]any{"dropped": args[0], "ranges": resp.Ranges}, "%s is dropped: %d ranges\n", args[0], resp.Ranges)
	})
	return c
}

// keyspaceView is a keyspace as it is printed. Its JSON is an interface: fields are only ever added.
type keyspaceView struct {
	ID    uint64 `json:"id"`
	Name  string `json:"name"`
	Kind  string `json:"kind"`  // single or sharded
	State string `json:"state"` // creating, active or dropping
}

func (p printer) keyspaces(recs []*metapb.KeyspaceRecord) error {
	views := []keyspaceView{}
	rows := [][]string{{"KEYSPACE", "KIND", "STATE", "ID"}}
	for _, r := range recs {
		v := keyspaceView{ID: r.KeyspaceId, Name: r.Name, Kind: "sharded", State: strings.ToLower(strings.TrimPrefix(r.State.String(), "KEYSPACE_STATE_"))}
		if r.Single {
			v.Kind = "single"
		}
		views = append(views, v)
		rows = append(rows, []string{v.Name, v.Kind, v.State, base.KeyspaceID(r.KeyspaceId).String()})
	}
	return p.rows(views, rows)
}
