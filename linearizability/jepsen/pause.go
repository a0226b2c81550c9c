package jepsen

import (
	"context"

	"github.com/cairndb/cairn/internal/base"
)

// pauseNemeses stop processes where they are and let them go on later: what a node believed of the time is then wrong, and
// its connections are open all the while.
func pauseNemeses() []Nemesis {
	return []Nemesis{
		{Name: "pause-one", Class: "F03", About: "stops a node for a time", Begin: hold(one)},
		{Name: "pause-leader", Class: "F03", About: "stops the leader of the clients' range, across an election", Begin: hold(leader)},
		{Name: "pause-majority", Class: "F03", About: "stops a majority of the nodes for a time", Begin: hold(majority)},
		{Name: "pause-all", Class: "F03", About: "stops all nodes for a time", Begin: hold(everybody)},
	}
}

func hold(choose victims) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return befall("paused", choose, (*Cluster).Pause, func(_ context.Context, c *Cluster, i int) error { return c.Resume(i) })
}
