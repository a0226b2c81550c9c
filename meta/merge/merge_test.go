package merge_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/merge"
)

// TestStories runs the dialogues in testdata/stories with a Run. Verbs: begin (left and right, one a line), resume (right), finish
// (left); then what became of the step that it wanted: done (the proposal took effect; what the range is then, if a Thaw or Absorbed
// was proposed, is not asked for), stale (the input is the range as it is), ambiguous, refused (why), confirmed (n=), found (a
// descriptor, or nothing: it could not be looked up). What the Run wants next is printed.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			s.do(t, c)
			return next(s.run)
		})
	})
}

type story struct {
	run         *merge.Run
	left, right *metapb.RangeDescriptor
}

func parse(t *testing.T, line string) *metapb.RangeDescriptor {
	t.Helper()
	d, err := desctest.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *story) do(t *testing.T, c *datadriven.TestData) {
	lines := strings.Split(c.Input, "\n")
	switch c.Cmd {
	case "begin":
		s.left, s.right = parse(t, lines[0]), parse(t, lines[1])
		s.run = merge.Begin(s.left, s.right)
	case "resume":
		s.right = parse(t, lines[0])
		s.run = merge.Resume(s.right)
	case "finish":
		s.left = parse(t, lines[0])
		s.run = merge.Finish(s.left)
	case "done":
		s.run.Answered(s.effect(t), nil)
	case "stale":
		d := parse(t, lines[0])
		s.run.Answered(nil, &base.StaleGeneration{Range: base.RangeID(d.RangeId), Current: d})
	case "ambiguous":
		s.run.Answered(nil, &base.Ambiguous{Cause: errors.New("the connection broke")})
	case "refused":
		s.run.Answered(nil, errors.New(c.Input))
	case "confirmed":
		var n int
		c.ScanArgs(t, "n", &n)
		s.run.Confirmed(n)
	case "found":
		if c.Input == "" {
			s.run.Found(nil, errors.New("no leader"))
			return
		}
		s.run.Found(parse(t, lines[0]), nil)
	default:
		c.Fatalf(t, "there is no verb %s", c.Cmd)
	}
}

// effect carries the proposal out on what the story's ranges are.
func (s *story) effect(t *testing.T) proto.Message {
	must := func(d *metapb.RangeDescriptor, err error) *metapb.RangeDescriptor {
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	switch body := s.run.Next().Propose.Command.Body.(type) {
	case *kvpb.Command_Freeze:
		s.right = must(desc.Freeze(body.Freeze.Left, s.right))
		return &kvpb.FreezeResponse{Right: &kvpb.FrozenRange{Descriptor_: s.right, AppliedIndex: 20, Revision: 7, Compacted: 3}}
	case *kvpb.Command_Merge:
		s.left = must(desc.Merge(s.left, body.Merge.Right.Descriptor_))
		return &kvpb.MergeResponse{Descriptor_: s.left}
	case *kvpb.Command_GiveUpMerge:
		return &kvpb.GiveUpMergeResponse{}
	case *kvpb.Command_Thaw:
		s.right = must(desc.Thaw(s.right, body.Thaw.Left))
		return &kvpb.ThawResponse{Descriptor_: s.right}
	case *kvpb.Command_Absorbed:
		s.left = must(desc.Absorbed(s.left))
		return &kvpb.AbsorbedResponse{Descriptor_: s.left}
	}
	t.Fatal("it proposes nothing")
	return nil
}

// next prints what a Run wants done.
func next(r *merge.Run) string {
	switch step := r.Next(); {
	case step.Propose != nil:
		return fmt.Sprintf("to the range of %s %q: %s\n", step.Propose.Keyspace, step.Propose.Key, command(step.Propose.Command))
	case step.Confirm != nil:
		c := step.Confirm
		return fmt.Sprintf("%d of %v are to confirm generation %d of %s\n", c.Need, c.Nodes, c.Generation, c.Range)
	case step.Look != nil:
		return fmt.Sprintf("look for the range of %s %q\n", step.Look.Keyspace, step.Look.Key)
	default:
		if step.Done.Err != nil {
			return fmt.Sprintf("ends: %v\n", step.Done.Err)
		}
		return fmt.Sprintf("ends: merged into %s\n", desc.Format(step.Done.Merged))
	}
}

func command(c *kvpb.Command) string {
	switch body := c.Body.(type) {
	case *kvpb.Command_Freeze:
		return fmt.Sprintf("at generation %d, freeze for %s", body.Freeze.ExpectedGeneration, desc.Format(body.Freeze.Left))
	case *kvpb.Command_Merge:
		r := body.Merge.Right
		return fmt.Sprintf("at generation %d, take over %s, which is at index %d and revision %d, compacted to %d",
			body.Merge.ExpectedGeneration, desc.Format(r.Descriptor_), r.AppliedIndex, r.Revision, r.Compacted)
	case *kvpb.Command_GiveUpMerge:
		return fmt.Sprintf("at generation %d, give the merge up", body.GiveUpMerge.ExpectedGeneration)
	case *kvpb.Command_Thaw:
		return fmt.Sprintf("at generation %d, thaw by %s", body.Thaw.ExpectedGeneration, desc.Format(body.Thaw.Left))
	case *kvpb.Command_Absorbed:
		return fmt.Sprintf("at generation %d, the other is absorbed", body.Absorbed.ExpectedGeneration)
	}
	return fmt.Sprintf("%T", c.Body)
}

// TestRunsEnd: whatever it is told, a Run ends after a bounded number of steps.
func TestRunsEnd(t *testing.T) {
	left := parse(t, "r9 ks9 [b, k) gen 5: 1@n1 2@n2 next 3")
	frozen := parse(t, "r10 ks9 [k, p) gen 8: 1@n1 2@n2 next 3 frozen for r9 gen 5 at b")
	run := merge.Resume(frozen)
	for steps := 0; run.Next().Done == nil; steps++ {
		if steps > 100 {
			t.Fatalf("it goes on for ever: %s", next(run))
		}
		if run.Next().Look != nil {
			run.Found(left, nil) // as if nobody had given it up
			continue
		}
		run.Answered(nil, errors.New("refused"))
	}
	if err := run.Next().Done.Err; err == nil {
		t.Error("it ends well")
	}
}
