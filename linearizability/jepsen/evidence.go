package jepsen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/protobuf/encoding/prototext"
)

// evidence keeps what a cluster that did not get well can still tell: what each node says of the cluster goes into a file
// of the folder, and what each goroutine of each process was doing into the logs. The processes have ended then.
func (c *Cluster) evidence(ctx context.Context, path string) error {
	var b strings.Builder
	for i, n := range c.Nodes {
		fmt.Fprintf(&b, "# as %s (%s) sees it\n", n.Name, n.ClientAddr)
		st, err := c.status(ctx, i)
		if err != nil {
			fmt.Fprintf(&b, "%v\n\n", err)
			continue
		}
		fmt.Fprintf(&b, "%s\n", prototext.Format(st))
	}
	err := os.WriteFile(path, []byte(b.String()), 0o644)
	for _, n := range c.Nodes {
		err = errors.Join(err, n.pause(false), n.end(syscall.SIGQUIT))
	}
	return err
}

// unwell keeps the evidence of a stage after which the cluster did not get well.
func (r *run) unwell(ctx context.Context, number int) {
	if r.cluster == nil || ctx.Err() != nil {
		return // told to stop: nothing is known to be wrong
	}
	name := fmt.Sprintf("status-%03d.txt", number)
	if err := r.cluster.evidence(ctx, filepath.Join(r.Dir, name)); err != nil {
		r.report.fail(number, "harness", "the evidence: %v", err)
		return
	}
	r.report.Logs = append(r.report.Logs, name)
}
