package jepsen

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cairndb/cairn/internal/base"
)

// partitionNemeses cut links. A cut is silent: what is sent is lost, and nobody is told.
func partitionNemeses() []Nemesis {
	needs := []Capability{Namespaces}
	return []Nemesis{
		{Name: "isolate-one", Class: "F04", About: "cuts a node off from all other nodes", Needs: needs, Begin: cut(isolated(one))},
		{Name: "isolate-leader", Class: "F04", About: "cuts the leader of the clients' range off from all other nodes; its clients still reach it", Needs: needs, Begin: cut(isolated(leader))},
		{Name: "halves", Class: "F04", About: "parts the nodes into a majority and the rest", Needs: needs, Begin: cut(halves)},
		{Name: "majorities-ring", Class: "F04", About: "each node reaches a majority, and no two the same", Needs: needs, Begin: cut(ring)},
		{Name: "bridge", Class: "F04", About: "two halves that only one node still joins", Needs: needs, Begin: cut(bridge)},
		{Name: "one-pair", Class: "F05", About: "cuts the link between two nodes", Needs: needs, Begin: cut(pairOnly)},
		{Name: "deaf-leader", Class: "F06", About: "the leader hears no node, and all hear it", Needs: needs, Begin: cut(oneWay(leader, true))},
		{Name: "mute-leader", Class: "F06", About: "no node hears the leader, and it hears all", Needs: needs, Begin: cut(oneWay(leader, false))},
		{Name: "deaf-one", Class: "F06", About: "a node hears no other, and all hear it", Needs: needs, Begin: cut(oneWay(one, true))},
		{Name: "clients-off", Class: "F06", About: "clients cannot reach a node that all other nodes reach", Needs: needs, Begin: cut(clientsOff)},
	}
}

// edges are directions of pairs: what the first sends to the second is lost.
type edges [][2]int

// shape draws what to cut, and says it in words.
type shape func(ctx context.Context, c *Cluster, r *base.Rand) (edges, string, error)

func cut(draw shape) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		lost, what, err := draw(ctx, c, r)
		if err != nil {
			return "", nil, err
		}
		heal := func(context.Context) (err error) {
			for _, e := range lost {
				err = errors.Join(err, c.Mend(e[0], e[1]))
			}
			return err
		}
		for _, e := range lost {
			if err := c.Cut(e[0], e[1]); err != nil {
				return what, heal, err
			}
		}
		return what, heal, nil
	}
}

// between are both directions between each of some nodes and each of others.
func between(some, others []int) (out edges) {
	for _, a := range some {
		for _, b := range others {
			out = append(out, [2]int{a, b}, [2]int{b, a})
		}
	}
	return out
}

func without(n int, not []int) (out []int) {
	out = []int{}
	for i := range n {
		skip := false
		for _, x := range not {
			skip = skip || x == i
		}
		if !skip {
			out = append(out, i)
		}
	}
	return out
}

func isolated(choose victims) shape {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
		chosen, err := choose(ctx, c, r)
		return between(chosen, without(c.Len(), chosen)), "cut off " + c.names(chosen), err
	}
}

func halves(_ context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
	all := drawNodes(c, r, c.Len())
	few, many := all[:(c.Len()-1)/2], all[(c.Len()-1)/2:]
	return between(few, many), c.names(few) + " | " + c.names(many), nil
}

// ring leaves each node those that stand next to it in a circle, as many as make a majority with itself; for an even
// number of nodes one more.
func ring(_ context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
	circle := drawNodes(c, r, c.Len())
	return ringEdges(circle), "a ring: " + c.names(circle), nil
}

func ringEdges(circle []int) (out edges) {
	n := len(circle)
	reach := (n/2 + 1) / 2 // on each side
	for i := range circle {
		for j := i + 1; j < n; j++ {
			if d := min(j-i, n-(j-i)); d > reach {
				out = append(out, between(circle[i:i+1], circle[j:j+1])...)
			}
		}
	}
	return out
}

func bridge(_ context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
	all := drawNodes(c, r, c.Len())
	middle, rest := all[0], all[1:]
	left, right := rest[:len(rest)/2], rest[len(rest)/2:]
	return between(left, right), fmt.Sprintf("%s | %s, joined by %s", c.names(left), c.names(right), c.Nodes[middle].Name), nil
}

func pairOnly(_ context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
	two := drawNodes(c, r, 2)
	return between(two[:1], two[1:]), "cut " + c.names(two) + " from each other", nil
}

// oneWay loses what a node is sent (deaf) or what it sends.
func oneWay(choose victims, deaf bool) shape {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
		chosen, err := choose(ctx, c, r)
		if err != nil {
			return nil, "", err
		}
		var out edges
		for _, other := range without(c.Len(), chosen) {
			e := [2]int{chosen[0], other}
			if deaf {
				e = [2]int{other, chosen[0]}
			}
			out = append(out, e)
		}
		if deaf {
			return out, c.names(chosen) + " hears no node", nil
		}
		return out, "no node hears " + c.names(chosen), nil
	}
}

func clientsOff(_ context.Context, c *Cluster, r *base.Rand) (edges, string, error) {
	chosen := drawNodes(c, r, 1)
	return between([]int{Clients}, chosen), "clients do not reach " + c.names(chosen), nil
}

// names are nodes' names.
func (c *Cluster) names(nodes []int) string {
	var out []string
	for _, i := range nodes {
		out = append(out, c.Nodes[i].Name)
	}
	return strings.Join(out, ", ")
}
