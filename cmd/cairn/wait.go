package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/operation"
)

// What a verb that waits for an operation answers its caller with, beside what every verb does.
const (
	exitNotDone = 4 // the operation ended, and not because it was done: it failed, or somebody cancelled it
	exitGoesOn  = 5 // the time to wait is over, or the node went away: the operation goes on
)

const waitCodes = `
It exits with 0 when the operation is done, with 4 if it ended otherwise (it failed, or somebody cancelled it), and with 5 if the
waiting was given up: the operation goes on.`

// waitTimeout bounds the waiting for an operation: a large node takes hours to empty.
const waitTimeout = 30 * 24 * time.Hour

// waitPause is how long a watch that broke waits before it is begun again, and waitTries how often that is done in a row.
const (
	waitPause = 500 * time.Millisecond
	waitTries = 60
)

// waitFlags are those of a verb that begins an operation.
type waitFlags struct {
	dry, wait *bool
	limit     *time.Duration
}

func addWait(c *cobra.Command) waitFlags {
	return waitFlags{
		dry:   dryFlag(c),
		wait:  c.Flags().Bool("wait", false, "wait until it is done, and show how far it is"),
		limit: c.Flags().Duration("timeout", 0, "with --wait: as long as `TIME` at most; 0: until it has ended"),
	}
}

// begin begins an operation, says so, and waits for its end if that is wanted.
func (w waitFlags) begin(ctx context.Context, e env, cl clusterpb.ClusterClient, op *metapb.Operation, out printer) error {
	asking, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	resp, err := cl.StartOperation(asking, &clusterpb.StartOperationRequest{Operation: op, DryRun: *w.dry})
	if err != nil {
		return err
	}
	if *w.wait && !*w.dry {
		return waitFor(ctx, e, cl, resp.Operation.OpId, *w.limit, out)
	}
	if out.json {
		return out.encode(struct {
			opView
			Steps []string `json:"steps"`
		}{toOpView(resp.Operation), append([]string{}, resp.Steps...)})
	}
	var b strings.Builder
	switch {
	case *w.dry:
		fmt.Fprintf(&b, "it would be begun: %s\n", operation.Describe(resp.Operation))
	default:
		fmt.Fprintf(&b, "operation %d: %s\n", resp.Operation.OpId, operation.Describe(resp.Operation))
	}
	for _, s := range resp.Steps {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	if !*w.dry {
		fmt.Fprintf(&b, "see cairn op watch %d\n", resp.Operation.OpId)
	}
	_, err = io.WriteString(out.w, b.String())
	return err
}

// waitFor watches an operation until it has ended, and prints it then.
func waitFor(ctx context.Context, e env, cl clusterpb.ClusterClient, id uint64, limit time.Duration, out printer) error {
	if limit > 0 {
		// A deadline would be known to the node, too, which may end the stream before it has passed here.
		limited, cancel := context.WithCancelCause(ctx)
		defer time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) }).Stop()
		defer cancel(nil)
		ctx = limited
	}
	p := newProgress(e.err)
	last, err := watch(ctx, cl, id, p.show)
	p.end()
	switch {
	case err != nil && last == nil && ctx.Err() == nil:
		return err
	case err != nil:
		why := status.Convert(err).Message()
		if ctx.Err() != nil { // whatever gRPC calls it then
			why = context.Cause(ctx).Error()
		}
		return &exitError{exitGoesOn, fmt.Sprintf("operation %d goes on; it is no longer watched (%s): see cairn op show %[1]d", id, why)}
	}
	if err := out.operation(last); err != nil {
		return err
	}
	if last.State != metapb.OperationState_OPERATION_STATE_DONE {
		return &exitError{exitNotDone, fmt.Sprintf("operation %d was not done: %s: %s", id, operation.State(last.State), last.Outcome)}
	}
	return nil
}

// watch calls show with an operation whenever it has changed, and returns how it was last. A watch that breaks is begun again.
func watch(ctx context.Context, cl clusterpb.ClusterClient, id uint64, show func(*metapb.Operation)) (last *metapb.Operation, err error) {
	for tries := 0; tries < waitTries; tries++ {
		var stream clusterpb.Cluster_WatchOperationClient
		stream, err = cl.WatchOperation(ctx, &clusterpb.WatchOperationRequest{OpId: id})
		for err == nil {
			var resp *clusterpb.WatchOperationResponse
			if resp, err = stream.Recv(); err == nil {
				last, tries = resp.Operation, 0
				show(last)
			}
		}
		if last != nil && !operation.Active(last) {
			return last, nil
		}
		if c := status.Code(err); !errors.Is(err, io.EOF) && c != codes.Unavailable {
			return last, err
		}
		timer := time.NewTimer(waitPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last, ctx.Err()
		}
	}
	return last, err
}

// progress shows how far an operation is: as a bar that is drawn again on a terminal, else as a line for each change.
type progress struct {
	w    io.Writer
	bar  bool
	last string
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		p.bar = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// barWidth is the bar's, in characters: with what stands beside it a line of a terminal.
const barWidth = 30

func (p *progress) show(op *metapb.Operation) {
	v := toOpView(op)
	line := v.State
	if v.Total > 0 {
		line = v.done()
		if v.BytesTotal > 0 && v.BytesLeft > 0 {
			line += ", " + byteCount(v.BytesLeft) + " left"
		}
		if v.Estimate > 0 {
			line += ", about " + v.estimate()
		}
	}
	if v.Waiting != "" {
		line += "  " + v.Waiting
	}
	if line == p.last {
		return
	}
	p.last = line
	if !p.bar {
		fmt.Fprintf(p.w, "operation %d: %s\n", op.OpId, line)
		return
	}
	full := 0
	if v.Total > 0 {
		full = int(barWidth * (v.Total - v.Left) / v.Total)
	}
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), line)
}

// end leaves the bar's line.
func (p *progress) end() {
	if p.bar && p.last != "" {
		fmt.Fprintln(p.w)
	}
}
