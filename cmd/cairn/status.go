package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// statusTimeout bounds the question: the node itself gives the others 2 s.
const statusTimeout = 10 * time.Second

func newStatus(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster's nodes and ranges",
		Long: `Show the cluster as the node at --host can see it now: it asks every other node. Nodes that do not answer
are shown as unreachable, and what only they know is missing.`,
		Example: `  cairn status
  cairn status --ranges --host 10.0.0.2:7400
  cairn status --ranges -o json | jq '.ranges[].leader.node'`,
		Args: cobra.NoArgs,
	}
	host := addHost(c, e)
	ranges := c.Flags().Bool("ranges", false, "show the ranges too")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		print := printTable
		switch *output {
		case "table":
		case "json":
			print = printJSON
		default:
			return &usageError{[]error{fmt.Errorf("-o %s is not known: give table or json", *output)}}
		}
		ctx, cancel := context.WithTimeout(c.Context(), statusTimeout)
		defer cancel()
		conn, err := host.dial()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		resp, err := clusterpb.NewClusterClient(conn).Status(ctx, &clusterpb.StatusRequest{Ranges: *ranges})
		if err != nil {
			return host.explain("status", err)
		}
		return print(e.out, toView(resp), *ranges)
	}
	return c
}

// The view is what is printed. Its JSON is an interface that scripts rely on: fields are only ever added.
type view struct {
	Nodes  []nodeView  `json:"nodes"`
	Ranges []rangeView `json:"ranges"` // empty without --ranges
}

type nodeView struct {
	ID       uint64 `json:"id"`
	Address  string `json:"address"`
	Locality string `json:"locality"` // region=eu,zone=a
	State    string `json:"state"`    // of the record, or "unreachable" if a node that should answer does not
	Version  string `json:"version"`
}

type rangeView struct {
	ID         uint64        `json:"id"`
	Keyspace   string        `json:"keyspace"`
	Start      string        `json:"start"` // bytes that cannot be printed are escaped as in Go: \x00
	End        string        `json:"end"`   // empty: to the keyspace's end
	Generation uint64        `json:"generation"`
	Leader     leaderView    `json:"leader"`
	Lease      leaseView     `json:"lease"`
	Rate       float64       `json:"rate"` // requests per second that the leader serves; 0 if it does not answer
	Replicas   []replicaView `json:"replicas"`
}

type leaderView struct {
	Node    uint64 `json:"node"` // 0: no leader is known
	Address string `json:"address"`
	Term    uint64 `json:"term"`
}

type leaseView struct {
	LeftMicros int64    `json:"left_micros"` // 0: the leader has none, or does not answer; -1: for ever, it alone decides
	Supporters []uint64 `json:"supporters"`  // nodes whose replicas hold their votes back for the leader
	Resting    bool     `json:"resting"`     // the range is idle: its leader sends nothing
}

type replicaView struct {
	Node    uint64 `json:"node"`
	Replica uint64 `json:"replica"`
	Role    string `json:"role"`
	Match   uint64 `json:"match"`   // 0 if the leader does not answer
	Applied uint64 `json:"applied"` // 0 if its node does not answer
}

func toView(s *clusterpb.StatusResponse) *view {
	v := &view{Nodes: []nodeView{}, Ranges: []rangeView{}}
	address := make(map[uint64]string)
	for _, n := range s.Nodes {
		address[n.Node.NodeId] = n.Node.Address
		v.Nodes = append(v.Nodes, nodeView{ID: n.Node.NodeId, Address: n.Node.Address,
			Locality: localityString(n.Node.Locality), State: stateString(n), Version: n.Node.Version})
	}
	for _, r := range s.Ranges {
		d := r.Descriptor_
		rv := rangeView{ID: d.GetRangeId(), Keyspace: r.Keyspace, Start: keyString(d.GetStart()), End: keyString(d.GetEnd()),
			Generation: d.GetGeneration(), Replicas: []replicaView{},
			Leader: leaderView{Node: r.LeaderNode, Address: address[r.LeaderNode], Term: r.Term},
			Lease:  leaseView{LeftMicros: r.Lease.GetLeftMicros(), Supporters: append([]uint64{}, r.Lease.GetSupporters()...), Resting: r.Lease.GetResting()},
			Rate:   math.Round(r.Rate*10) / 10}
		for _, p := range r.Replicas {
			rv.Replicas = append(rv.Replicas, replicaView{Node: p.Node, Replica: p.Replica,
				Role: enumString("REPLICA_ROLE_", p.Role.String()), Match: p.Match, Applied: p.Applied})
		}
		v.Ranges = append(v.Ranges, rv)
	}
	return v
}

// stateString: a node that is expected to answer and does not is called unreachable, whatever its record says.
func stateString(n *clusterpb.NodeEntry) string {
	switch n.Node.State {
	case metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED, metapb.NodeState_NODE_STATE_FAILED:
	default:
		if !n.Reachable {
			return "unreachable"
		}
	}
	return enumString("NODE_STATE_", n.Node.State.String())
}

func enumString(prefix, name string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func localityString(tiers []*metapb.LocalityTier) string {
	var parts []string
	for _, t := range tiers {
		parts = append(parts, t.Key+"="+t.Value)
	}
	return strings.Join(parts, ",")
}

func keyString(k []byte) string {
	q := strconv.Quote(string(k))
	return q[1 : len(q)-1]
}

func printJSON(w io.Writer, v *view, _ bool) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printTable(w io.Writer, v *view, ranges bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tADDRESS\tLOCALITY\tSTATE\tVERSION")
	for _, n := range v.Nodes {
		fmt.Fprintf(tw, "n%d\t%s\t%s\t%s\t%s\n", n.ID, n.Address, orDash(n.Locality), n.State, orDash(n.Version))
	}
	if ranges {
		fmt.Fprintln(tw, "\nRANGE\tKEYSPACE\tSTART\tEND\tGENERATION\tLEADER\tTERM\tLEASE\tRATE\tREPLICAS")
		for _, r := range v.Ranges {
			leader := "none"
			if r.Leader.Node != 0 {
				leader = fmt.Sprintf("n%d", r.Leader.Node)
			}
			fmt.Fprintf(tw, "r%d\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", r.ID, r.Keyspace, orDash(r.Start), orDash(r.End),
				r.Generation, leader, r.Leader.Term, leaseString(r.Lease), rateString(r), orDash(replicasString(r.Replicas)))
		}
	}
	return tw.Flush()
}

// leaseString is how long the lease lasts and whom it rests on: 182ms n2 n3.
func leaseString(l leaseView) string {
	if l.LeftMicros == 0 {
		return "-"
	}
	s := "alone"
	if l.LeftMicros > 0 {
		s = (time.Duration(l.LeftMicros) * time.Microsecond).Round(time.Millisecond).String()
	}
	for _, n := range l.Supporters {
		s += fmt.Sprintf(" n%d", n)
	}
	if l.Resting {
		s += " resting"
	}
	return s
}

// rateString is the leader's requests per second.
func rateString(r rangeView) string {
	if r.Leader.Node == 0 {
		return "-"
	}
	return strconv.FormatFloat(r.Rate, 'f', 0, 64)
}

// replicasString is node:applied for each replica, with the role of those that are not voters.
func replicasString(rs []replicaView) string {
	var parts []string
	for _, r := range rs {
		s := fmt.Sprintf("n%d:%d", r.Node, r.Applied)
		if r.Applied == 0 {
			s = fmt.Sprintf("n%d:?", r.Node) // its node does not answer
		}
		if r.Role != "voter" {
			s += "(" + r.Role + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
