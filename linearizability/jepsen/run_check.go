package jepsen

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// check holds a stage's history against the checkers of its workloads. carried operations at its beginning are of earlier
// stages.
func (r *run) check(number int, works []*work, h *linearizability.History, carried int, rep *StageReport) {
	begun := time.Now()
	found := violations(works, h)
	for _, v := range found {
		r.report.fail(number, v.Checker, "%s", describe(v))
	}
	rep.Check = time.Since(begun).Seconds()
	var err error
	if rep.Pictures, err = r.pictures(number, h, found); err != nil {
		r.report.fail(number, "harness", "porcupine's picture: %v", err)
	}
	own := h.Ops[carried:] // those before are counted where they belong
	rep.Checked = len(own)
	rep.Operations = count(own)
	rep.Events = events(own)
}

// events are those that watches took.
func events(ops []*linearizability.Op) (n int64) {
	for _, op := range ops {
		if r, ok := op.Response.(*followpb.FollowResponse); ok {
			n += r.Events
		}
	}
	return n
}

// violations are what the checkers of all workloads find, in the order of the workloads. Each sees the history of the
// whole of its keyspace, as the contract says, and looks at its own prefix; what two of them say in the same words is said once.
// They only read, so that they run at once, as many as there are processors.
func violations(works []*work, h *linearizability.History) (out []linearizability.Violation) {
	type task struct {
		checker linearizability.Checker
		history *linearizability.History
	}
	of := make(map[base.KeyspaceID]*linearizability.History)
	for _, op := range h.Ops {
		id := base.KeyspaceID(op.Keyspace)
		if of[id] == nil {
			of[id] = &linearizability.History{}
		}
		of[id].Ops = append(of[id].Ops, op)
	}
	var all []task
	for _, w := range works {
		for _, c := range w.w.Checkers() {
			if own := of[w.keyspace.id]; own != nil {
				all = append(all, task{c, own})
			}
		}
	}
	found := make([][]linearizability.Violation, len(all))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, t := range all {
		g.Go(func() error {
			found[i] = t.checker.Check(t.history)
			return nil
		})
	}
	_ = g.Wait() // checkers have no errors: what they cannot decide is a violation
	said := make(map[[2]string]bool)
	for _, v := range slices.Concat(found...) {
		if words := [2]string{v.Checker, v.What}; !said[words] {
			said[words] = true
			out = append(out, v)
		}
	}
	return out
}

// maxShown operations of a violation are printed; the history has them all.
const maxShown = 12

// describe puts a violation into words for a report.
func describe(v linearizability.Violation) string {
	var b strings.Builder
	b.WriteString(v.What)
	for i, op := range v.Ops {
		if i == maxShown {
			fmt.Fprintf(&b, "\n  and %d more", len(v.Ops)-i)
			break
		}
		fmt.Fprintf(&b, "\n  client %d, %d to %d, %s: %v", op.Client, op.Invoked, op.Returned, op.Outcome, op.Request)
		switch {
		case op.Response != nil:
			fmt.Fprintf(&b, " = %v", op.Response)
		case op.Err != "":
			fmt.Fprintf(&b, ": %s", op.Err)
		}
	}
	return b.String()
}

// copyFile copies a node's log into the report's folder.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close() // the error of the copy is the one to tell
		return err
	}
	return out.Close()
}
