package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

// newNode holds the verbs for nodes.
func newNode(e env) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "List nodes, see who is well, and change what they are for"}
	c.AddCommand(newNodeLs(e))
	c.AddCommand(newNodeMatrix(e))
	c.AddCommand(nodeChanges(e)...)
	return c
}

func newNodeLs(e env) *cobra.Command {
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List the nodes, and why each is held to be what it is",
		Long: `List the nodes, and why each is held to be what it is. Who is well is judged by the leader of sys, from what all nodes tell
it once a second; HEARD is how long ago it heard of the node.

  joining   it was let in, and has not announced itself yet
  active    it is well
  suspect   most nodes that share ranges with it no longer support it: it may be gone, and nothing is moved yet
  failed    it was suspect for so long that what it holds is replaced; it comes back under a higher epoch
  leaving   it is being decommissioned
  left      it can never come back; neither can one that was replaced by another store at its address

FLAGS: cordoned, it takes nothing new; draining, it is to lead nothing; slow, with what shows it in WHY.`,
		Example: `  cairn node ls
  cairn node ls -o json | jq '.nodes[] | select(.state != "active") | .why'`,
		Args: cobra.NoArgs,
	}
	onNode(c, e, statusTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		resp, err := cl.ListNodes(ctx, &clusterpb.ListNodesRequest{})
		if err != nil {
			return err
		}
		v := toNodesView(resp)
		if err := out.rows(v, v.table()); err != nil {
			return err
		}
		if v.Remembered {
			if _, err := fmt.Fprintln(e.err, "sys could not be read: these are the records that the node which was asked remembers"); err != nil {
				return err
			}
		}
		if v.ToldBy == 0 {
			_, err = fmt.Fprintln(e.err, "the node that was asked has not been told by the leader of sys lately: who is well is not known; ask another (--host)")
		}
		return err
	})
	return c
}

// nodesView is what is printed. Its JSON is an interface: fields are only ever added.
type nodesView struct {
	Nodes  []nodeInfoView `json:"nodes"`
	ToldBy uint64         `json:"told_by"` // the leader of sys; 0: it could not be asked, and heard, why, load are missing
	// Remembered: sys could not be read, and the records are those that the node which was asked remembers.
	Remembered bool `json:"remembered"`
}

type nodeInfoView struct {
	ID          uint64   `json:"id"`
	Address     string   `json:"address"`
	Locality    string   `json:"locality"`
	Attributes  []string `json:"attributes"`
	State       string   `json:"state"`
	Flags       []string `json:"flags"` // cordoned, draining, slow
	Version     string   `json:"version"`
	Generation  uint64   `json:"generation"`
	Epoch       uint64   `json:"epoch"`
	Incarnation uint64   `json:"incarnation"`
	Since       int64    `json:"since_unix_micros"` // that it is in its state
	Cpus        uint32   `json:"cpus"`

	HeardMicros     int64     `json:"heard_micros"` // since its last heartbeat; -1: not known, or none
	SuspectedMicros int64     `json:"suspected_micros"`
	Reporters       []uint64  `json:"reporters"`
	Supporters      []uint64  `json:"supporters"`
	Why             string    `json:"why"`
	Slow            string    `json:"slow"` // what shows that it is slow; empty: it is not
	Load            *loadView `json:"load"` // null: not known
}

type loadView struct {
	Replicas               uint64  `json:"replicas"`
	Leaders                uint64  `json:"leaders"`
	Bytes                  uint64  `json:"bytes"`
	DiskUsed               uint64  `json:"disk_used"`
	DiskBytes              uint64  `json:"disk_bytes"`
	RequestsPerSecond      float64 `json:"requests_per_second"`
	CPUPermille            uint32  `json:"cpu_permille"`
	SyncMicros             int64   `json:"sync_micros"`
	PutMicros              int64   `json:"put_micros"`
	PutNormalMicros        int64   `json:"put_normal_micros"`
	LateMicros             int64   `json:"late_micros"`
	SnapshotsSending       uint32  `json:"snapshots_sending"`
	SnapshotsReceiving     uint32  `json:"snapshots_receiving"`
	SnapshotBytesPerSecond uint64  `json:"snapshot_bytes_per_second"`
}

func toNodesView(resp *clusterpb.ListNodesResponse) *nodesView {
	v := &nodesView{Nodes: []nodeInfoView{}, ToldBy: resp.ToldBy, Remembered: resp.Remembered}
	for _, n := range resp.Nodes {
		r, h := n.Record, n.Health
		i := nodeInfoView{
			ID: r.NodeId, Address: r.Address, Locality: localityString(r.Locality), Attributes: append([]string{}, r.Attributes...),
			State: enumString("NODE_STATE_", r.State.String()), Flags: []string{}, Version: r.Version, Generation: r.Generation, Epoch: r.Epoch,
			Incarnation: r.Incarnation, Since: r.SinceUnixMicros, Cpus: r.Cpus,
			HeardMicros: -1, Reporters: append([]uint64{}, h.GetReporters()...), Supporters: append([]uint64{}, h.GetSupporters()...),
			SuspectedMicros: h.GetSuspectedMicros(), Why: h.GetWhy(), Slow: h.GetSlow(),
		}
		if h != nil {
			i.HeardMicros = max(-1, h.HeardMicros)
		} else {
			i.Why = r.Reason
		}
		for _, f := range []struct {
			is   bool
			name string
		}{{r.Cordoned, "cordoned"}, {r.Draining, "draining"}, {i.Slow != "", "slow"}} {
			if f.is {
				i.Flags = append(i.Flags, f.name)
			}
		}
		if l := h.GetLoad(); l != nil {
			i.Load = &loadView{
				l.Replicas, l.Leaders, l.Bytes, l.DiskUsed, l.DiskBytes, l.RequestsPerSecond, l.CpuPermille, l.SyncMicros, l.PutMicros,
				l.PutNormalMicros, l.LateMicros, l.SnapshotsSending, l.SnapshotsReceiving, l.SnapshotBytesPerSecond,
			}
		}
		v.Nodes = append(v.Nodes, i)
	}
	return v
}

// table is the same for people.
func (v *nodesView) table() [][]string {
	rows := [][]string{{"NODE", "ADDRESS", "LOCALITY", "STATE", "FLAGS", "VERSION", "REPLICAS", "LEADERS", "DISK", "HEARD", "WHY"}}
	for _, n := range v.Nodes {
		replicas, leaders, disk, heard := "-", "-", "-", "-"
		if l := n.Load; l != nil {
			replicas, leaders = strconv.FormatUint(l.Replicas, 10), strconv.FormatUint(l.Leaders, 10)
			if l.DiskBytes > 0 {
				disk = fmt.Sprintf("%d%% of %s", l.DiskUsed*100/l.DiskBytes, bytesString(l.DiskBytes))
			}
		}
		if n.HeardMicros >= 0 {
			heard = (time.Duration(n.HeardMicros) * time.Microsecond).Round(100 * time.Millisecond).String()
		}
		why := n.Why
		if n.Slow != "" {
			why = "slow: " + n.Slow + "; " + why
		}
		rows = append(rows, []string{
			fmt.Sprintf("n%d", n.ID), n.Address, orDash(n.Locality), n.State, orDash(joined(n.Flags)), orDash(n.Version), replicas, leaders, disk, heard, orDash(why),
		})
	}
	return rows
}

func joined(words []string) (s string) {
	for i, w := range slices.Sorted(slices.Values(words)) {
		if i > 0 {
			s += ","
		}
		s += w
	}
	return s
}

// bytesString is a size as people say it: 1.5 GiB.
func bytesString(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, u := float64(n), 0
	for ; f >= 1024 && u < len(units)-1; u++ {
		f /= 1024
	}
	if f < 10 && u > 0 {
		return fmt.Sprintf("%.1f %s", f, units[u])
	}
	return fmt.Sprintf("%.0f %s", f, units[u])
}

func newNodeMatrix(e env) *cobra.Command {
	return newSupportMatrix(e, &cobra.Command{
		Use:   "matrix",
		Short: "Show who hears whom",
		Example: `  cairn node matrix
  cairn node matrix -o json | jq '.[] | select(.promised == false)'`,
	})
}
