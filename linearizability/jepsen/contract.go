package jepsen

import (
	"context"

	"github.com/cairndb/cairn/internal/base"
)

// Capability is something that a machine may lack: namespaces, a packet filter, a binary built for tests. What needs one
// that is not here is counted as skipped, by name.
type Capability string

// Nemesis is one way to make a running cluster unwell. One file each, or one file for a family.
type Nemesis struct {
	Name  string // as on the command line: kill-leader, pause-minority, ring
	Class string // F01 … F16
	About string // one line
	Needs []Capability
	// Begin makes the cluster unwell and returns what it did, for the timeline, and how to make it well again. heal is
	// called once, also after ctx has ended; it returns when what it undid is undone, not when the cluster has recovered.
	Begin beginning
}

type beginning func(ctx context.Context, c *Cluster, r *base.Rand) (what string, heal func(context.Context) error, err error)
