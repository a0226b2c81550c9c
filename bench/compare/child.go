package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/peer"
)

// child is a process that measures, and prints the events of package load while it does.
type child struct {
	cmd        *exec.Cmd
	lines      io.Reader
	complaints strings.Builder
	cancel     context.CancelFunc
}

// Measure runs a process that measures to its end, and returns its report. begin and end are called as the time that it counts
// begins and ends.
func Measure(ctx context.Context, binary string, args []string, begin, end func() error) (closed.Report, error) {
	c, err := startChild(ctx, binary, args)
	if err != nil {
		return closed.Report{}, err
	}
	return c.finish(begin, end)
}

// startChild starts one. It is killed when ctx ends.
func startChild(ctx context.Context, binary string, args []string) (*child, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &child{cmd: exec.CommandContext(ctx, binary, args...), cancel: cancel}
	c.cmd.SysProcAttr = peer.Leashed()
	c.cmd.Stderr = &c.complaints
	lines, err := c.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	c.lines = lines
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return c, nil
}

// finish follows the child's events to its end.
func (c *child) finish(begin, end func() error) (closed.Report, error) {
	defer c.cancel()
	report, err := follow(c.lines, begin, end)
	if err != nil {
		c.cancel() // it may be waiting for a reader
	}
	if err := errors.Join(err, c.cmd.Wait()); err != nil {
		return report, fmt.Errorf("%s: %w; it said: %s", strings.Join(c.cmd.Args, " "), err, c.complaints.String())
	}
	return report, nil
}

// follow reads events up to the report.
func follow(lines io.Reader, begin, end func() error) (closed.Report, error) {
	decoder := json.NewDecoder(lines)
	for {
		var e closed.Event
		if err := decoder.Decode(&e); err != nil {
			return closed.Report{}, fmt.Errorf("it ended without a report: %w", err)
		}
		var err error
		switch {
		case e.Event == closed.Begin:
			err = begin()
		case e.Event == closed.End:
			err = end()
		case e.Event == closed.Done && e.Report != nil:
			return *e.Report, nil
		default:
			err = fmt.Errorf("unknown event %q", e.Event)
		}
		if err != nil {
			return closed.Report{}, err
		}
	}
}
