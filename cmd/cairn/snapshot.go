package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/node/backup"
)

// newSnapshot holds the verbs for snapshots of the clients' data.
func newSnapshot(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Save what clients have stored to a file, and make a new cluster of it",
		Long: `Save what clients have stored to a file, and make a new cluster of it. The file holds every keyspace, each as it was at one moment
while the snapshot was taken, with its history since the last compaction. It holds nothing of the cluster itself: no nodes, no policies.`,
	}
	c.AddCommand(newSnapshotSave(e), newSnapshotStatus(e), newSnapshotRestore(e))
	return c
}

func newSnapshotSave(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "save FILE",
		Short: "Save a snapshot of what clients have stored",
		Long: `Save a snapshot of what clients have stored. The cluster goes on working meanwhile; FILE is there when all of it is, checked and on disk.
What etcdctl snapshot save writes is the same.`,
		Example: `  cairn snapshot save /backup/monday.snap --host 10.0.0.1:7400`,
		Args:    cobra.ExactArgs(1),
	}
	host := addHost(c, e)
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		out, err := output.printer(e)
		if err != nil {
			return err
		}
		contents, err := saveSnapshot(c.Context(), host, args[0])
		if err != nil {
			return err
		}
		return out.contents(args[0], contents)
	}
	return c
}

// saveSnapshot has FILE be whole or not there: what is not finished has another name.
func saveSnapshot(ctx context.Context, host *hostFlag, path string) (*backup.Contents, error) {
	conn, err := host.dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(part) // it is not there any more if all went well
	defer f.Close()
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
	for err == nil {
		var resp *pb.SnapshotResponse
		if resp, err = stream.Recv(); err == nil {
			if _, werr := f.Write(resp.Blob); werr != nil {
				return nil, werr
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, host.explain("snapshot save", heard(stream, err))
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	contents, err := backup.Inspect(part)
	if err != nil {
		return nil, fmt.Errorf("what %s sent: %w", host.address, err)
	}
	return contents, backup.Place(part, path)
}

func newSnapshotStatus(e env) *cobra.Command {
	c := &cobra.Command{
		Use:     "status FILE",
		Short:   "Read a snapshot, check every byte of it, and say what is in it",
		Example: `  cairn snapshot status /backup/monday.snap -o json`,
		Args:    cobra.ExactArgs(1),
	}
	output := addOutput(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		out, err := output.printer(e)
		if err != nil {
			return err
		}
		contents, err := backup.Inspect(args[0])
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return out.contents(args[0], contents)
	}
	return c
}

func newSnapshotRestore(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the store of a new cluster's first node of a snapshot",
		Long: `Make the store of a new cluster's first node of a snapshot. Start the node with it as any other, without cairn init; then start the other
nodes with empty stores and --join, and the data is spread over them. Never start a node of the first cluster and one of the new cluster
for the same clients: they are two clusters.`,
		Example: `  cairn snapshot restore /backup/monday.snap --store /var/lib/cairn
  cairn start --store /var/lib/cairn --listen 10.0.0.1:7400`,
		Args: cobra.ExactArgs(1),
	}
	cfg := backup.RestoreConfig{}
	c.Flags().StringVar(&cfg.Dir, "store", "", "`DIR` of the store that is made: not there yet, or empty (required)")
	c.Flags().Int64Var(&cfg.BumpRevision, "bump-revision", 0, "have revisions go on so `MUCH` higher than in the file, above all that clients of the first cluster have seen since; with --mark-compacted")
	c.Flags().BoolVar(&cfg.MarkCompacted, "mark-compacted", false, "have all history be compacted, so that whoever watches from an older revision is told")
	_ = c.MarkFlagRequired("store") // it exists
	output := addOutput(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		out, err := output.printer(e)
		if err != nil {
			return err
		}
		cfg.File = args[0]
		if err := cfg.Validate(); err != nil {
			return &usageError{flatten(err)}
		}
		made, err := backup.Restore(cfg)
		if err != nil {
			return fmt.Errorf("restore %s: %w", args[0], err)
		}
		return out.value(map[string]any{"store": cfg.Dir, "cluster_id": fmt.Sprintf("%x", made.ClusterID), "keyspaces": len(made.File.Keyspaces)},
			"%s is the store of the first node of cluster %x, with %d keyspaces: start it with cairn start --store %[1]s\n",
			cfg.Dir, made.ClusterID, len(made.File.Keyspaces))
	}
	return c
}

// snapshotView is a file as it is printed. Its JSON is an interface: fields are only ever added.
type snapshotView struct {
	File      string         `json:"file"`
	Bytes     int64          `json:"bytes"`
	SHA256    string         `json:"sha256"`
	Taken     string         `json:"taken"`
	ClusterID string         `json:"cluster_id"`
	Keyspaces []snapshotPart `json:"keyspaces"`
}

type snapshotPart struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Revision  int64  `json:"revision"`
	Compacted int64  `json:"compacted"` // -1: never
	Keys      uint64 `json:"keys"`
	Versions  uint64 `json:"versions"`
	Leases    uint64 `json:"leases"`
}

func (p printer) contents(file string, c *backup.Contents) error {
	v := snapshotView{
		File: file, Bytes: c.Bytes, SHA256: hex.EncodeToString(c.SHA256[:]), ClusterID: fmt.Sprintf("%x", c.Beginning.ClusterId),
		Taken: time.UnixMicro(c.Beginning.TakenUnixMicros).UTC().Format(time.RFC3339),
	}
	rows := [][]string{{"KEYSPACE", "KIND", "REVISION", "COMPACTED", "KEYS", "VERSIONS", "LEASES"}}
	for _, k := range c.Keyspaces {
		kind := "sharded"
		if k.Single {
			kind = "single"
		}
		v.Keyspaces = append(v.Keyspaces, snapshotPart{k.Name, kind, k.Revision, k.Compacted, k.Keys, k.Versions, k.Leases})
		rows = append(rows, []string{k.Name, kind, fmt.Sprint(k.Revision), fmt.Sprint(k.Compacted), fmt.Sprint(k.Keys), fmt.Sprint(k.Versions), fmt.Sprint(k.Leases)})
	}
	if !p.json {
		if _, err := fmt.Fprintf(p.w, "%s: %d bytes, taken %s from cluster %s, sha256 %s\n", file, v.Bytes, v.Taken, v.ClusterID, v.SHA256); err != nil {
			return err
		}
	}
	return p.rows(v, rows)
}
