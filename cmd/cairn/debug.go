package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

// newDebug holds the verbs for those who look inside a node.
func newDebug(e env) *cobra.Command {
	c := &cobra.Command{Use: "debug", Short: "Look inside a node, and check the cluster"}
	c.AddCommand(newDebugMetrics(e), newDebugSupport(e), newDebugCheck(e))
	return c
}

func newDebugMetrics(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "metrics",
		Short: "Show the counters of a node's store since it was started",
		Example: `  cairn debug metrics --host 10.0.0.2:7400
  cairn debug metrics -o json | jq .syncs`,
		Args: cobra.NoArgs,
	}
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
		resp, err := clusterpb.NewClusterClient(conn).NodeStatus(ctx, &clusterpb.NodeStatusRequest{})
		if err != nil {
			return host.explain("debug metrics", err)
		}
		rows := storeCounters(resp.GetStore())
		if *output == "json" {
			values := make(map[string]uint64, len(rows))
			for _, r := range rows {
				values[r.name] = r.value
			}
			return json.NewEncoder(e.out).Encode(values)
		}
		w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
		for _, r := range rows {
			if _, err := fmt.Fprintf(w, "%s\t%d\n", r.name, r.value); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	return c
}

type counter struct {
	name  string
	value uint64
}

// storeCounters names the counters as they are printed: names are only ever added.
func storeCounters(m *clusterpb.StoreMetrics) []counter {
	return []counter{
		{"syncs", m.GetSyncs()}, {"bytes_written", m.GetBytesWritten()}, {"disk_bytes", m.GetDiskBytes()},
		{"memtable_bytes", m.GetMemtableBytes()}, {"block_cache_bytes", m.GetBlockCacheBytes()},
		{"compactions", m.GetCompactions()}, {"passes", m.GetPasses()},
		{"snapshots_sent", m.GetSnapshotsSent()}, {"snapshots_failed", m.GetSnapshotsFailed()},
		{"leaders", m.GetLeaders()}, {"leaders_resting", m.GetLeadersResting()}, {"frames_sent", m.GetFramesSent()},
		{"leases_lost", m.GetLeasesLost()},
		{"snapshots_installed", m.GetSnapshotsInstalled()}, {"snapshots_resumed", m.GetSnapshotsResumed()},
		{"splits_size", m.GetSplitsSize()}, {"splits_load", m.GetSplitsLoad()}, {"splits_hand", m.GetSplitsHand()},
	}
}
