package jepsen

import (
	"context"
	"errors"

	"github.com/cairndb/cairn/internal/base"
)

// killNemeses end processes as the kernel does when memory is short: at once. Their heal starts them on their stores.
func killNemeses() []Nemesis {
	return []Nemesis{
		{Name: "kill-one", Class: "F01", About: "kills a node at once, and starts it on its store", Begin: kill(one)},
		{Name: "kill-leader", Class: "F01", About: "kills the leader of the clients' range", Begin: kill(leader)},
		{Name: "kill-minority", Class: "F01", About: "kills as many nodes as leave a majority", Begin: kill(minority)},
		{Name: "kill-all", Class: "F01", About: "kills all nodes at once", Begin: kill(everybody)},
	}
}

// victims chooses nodes of a cluster.
type victims func(ctx context.Context, c *Cluster, r *base.Rand) ([]int, error)

func one(_ context.Context, c *Cluster, r *base.Rand) ([]int, error) { return drawNodes(c, r, 1), nil }

// leader chooses the leader of the clients' range, or any node where nobody leads: another nemesis may be at work.
func leader(ctx context.Context, c *Cluster, r *base.Rand) ([]int, error) {
	ask, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	i, err := c.Leader(ask, base.KeyspaceDefault)
	if err != nil {
		return one(ctx, c, r)
	}
	return []int{i}, nil
}

func minority(_ context.Context, c *Cluster, r *base.Rand) ([]int, error) {
	return drawNodes(c, r, (c.Len()-1)/2), nil
}

func majority(_ context.Context, c *Cluster, r *base.Rand) ([]int, error) {
	return drawNodes(c, r, c.Len()/2+1), nil
}

func everybody(_ context.Context, c *Cluster, r *base.Rand) ([]int, error) {
	return drawNodes(c, r, c.Len()), nil
}

// drawNodes draws some nodes.
func drawNodes(c *Cluster, r *base.Rand, n int) []int {
	all := make([]int, c.Len())
	for i := range all {
		all[i] = i
	}
	for i := len(all) - 1; i > 0; i-- {
		j := int(r.Int63n(int64(i + 1)))
		all[i], all[j] = all[j], all[i]
	}
	return all[:n]
}

func kill(choose victims) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return befall("killed", choose, (*Cluster).Kill, func(ctx context.Context, c *Cluster, i int) error { return c.Restart(ctx, i) })
}

// befall makes a nemesis of what is done to each of some nodes and how that is undone. What was begun is undone also if
// not all of it could be.
func befall(verb string, choose victims, do func(*Cluster, int) error, undo func(context.Context, *Cluster, int) error,
) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		chosen, err := choose(ctx, c, r)
		if err != nil {
			return "", nil, err
		}
		heal := func(ctx context.Context) (err error) {
			for _, i := range chosen {
				err = errors.Join(err, undo(ctx, c, i))
			}
			return err
		}
		for _, i := range chosen {
			err = errors.Join(err, do(c, i))
		}
		return verb + " " + c.names(chosen), heal, err
	}
}
