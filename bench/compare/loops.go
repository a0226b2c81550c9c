package compare

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/proc"
)

// loops compares two programs of which each runs three nodes and their clients in one process, with no server in
// front: what is left is the loop that orders, stores and applies entries. They run one at a time, each in an empty
// folder.
type loops struct {
	config   Config
	binaries [2]string
	folder   string
	running  [2]*child
}

func (l *loops) load(ctx context.Context, cell Cell, side Side, begin, end func() error) (closed.Report, error) {
	folder := filepath.Join(l.folder, "loops")
	if err := os.RemoveAll(folder); err != nil {
		return closed.Report{}, err
	}
	c, err := startChild(ctx, l.binaries[side], []string{
		"-folder", folder, "-groups", strconv.Itoa(cell.Groups), "-clients", strconv.Itoa(cell.Clients),
		"-value-bytes", strconv.Itoa(l.config.ValueBytes),
		"-warmup", l.config.Warmup.String(), "-length", l.config.LoopLength.String(),
	})
	if err != nil {
		return closed.Report{}, err
	}
	l.running = [2]*child{}
	l.running[side] = c
	return c.finish(begin, end)
}

// usage is that of nodes and clients together: they are one process. The side that does not run uses nothing.
func (l *loops) usage(side Side) (proc.Usage, error) {
	if l.running[side] == nil {
		return proc.Usage{}, nil
	}
	return proc.Of(l.running[side].cmd.Process.Pid)
}

// loadUsage implements subject: the load is made in the side's own process.
func (l *loops) loadUsage() (proc.Usage, error) { return proc.Usage{}, nil }

// syncs is not known: neither program counts them alike; the disk's flushes stand for them.
func (l *loops) syncs(context.Context, Side) (float64, bool, error) { return 0, false, nil }
