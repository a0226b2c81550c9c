package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

// rangeNode answers what is asked of ranges.
type rangeNode struct {
	clusterpb.UnimplementedClusterServer
	ranges []*clusterpb.IndexedRange
	merge  *clusterpb.MergeRangeRequest
	err    error
}

func (f *rangeNode) ListRanges(context.Context, *clusterpb.ListRangesRequest) (*clusterpb.ListRangesResponse, error) {
	return &clusterpb.ListRangesResponse{Ranges: f.ranges}, f.err
}

func (f *rangeNode) MergeRange(_ context.Context, req *clusterpb.MergeRangeRequest) (*clusterpb.MergeRangeResponse, error) {
	f.merge = req
	merged := desc.Clone(f.ranges[0].Descriptor_)
	merged.End, merged.Absorbing = nil, f.ranges[1].Descriptor_.RangeId
	return &clusterpb.MergeRangeResponse{Merged: merged}, f.err
}

func indexed(t *testing.T, lines ...string) (out []*clusterpb.IndexedRange) {
	for _, l := range lines {
		d, err := desctest.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &clusterpb.IndexedRange{Keyspace: "shards", Descriptor_: d})
	}
	return out
}

// A range that is being merged says so, and of which step.
func TestRangeGolden(t *testing.T) {
	f := &rangeNode{ranges: indexed(t,
		"r100 ks100 [-∞, k) gen 5: 1@n1 2@n2 3@n3 next 4",
		"r101 ks100 [k, p) gen 7: 1@n1 2@n2 3@n3 next 4 frozen for r100 gen 5 at -∞",
		"r102 ks100 [p, +∞) gen 9: 1@n1(outgoing) 2@n2 3@n3 4@n4(incoming) next 5",
		"r110 ks101 [-∞, +∞) gen 9: 1@n1 2@n2 3@n3 next 4 absorbing r111",
	)}
	address := serve(t, f)
	for _, c := range []struct{ args, file string }{
		{"range ls", "ranges.txt"},
		{"range ls -o json", "ranges.json"},
		{"range show r101", "range.txt"},
		{"range merge --keyspace shards --key a", "merged.txt"},
	} {
		out, errs, code := cairn(t, map[string]string{hostVariable: address}, strings.Fields(c.args)...)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit %d, %q", c.args, code, errs)
		}
		golden(t, c.file, out)
	}
	if f.merge.Keyspace != "shards" || string(f.merge.Key) != "a" || f.merge.DryRun {
		t.Errorf("asked for %v", f.merge)
	}
	if _, _, code := cairn(t, nil, "range", "merge", "--keyspace", "shards", "--key", "a", "--dry-run", "--host", address); code != exitOK || !f.merge.DryRun {
		t.Errorf("exit %d, asked for %v", code, f.merge)
	}
	if _, errs, code := cairn(t, nil, "range", "show", "r5", "--host", address); code != exitFailed || !strings.Contains(errs, "cairn range ls") {
		t.Errorf("exit %d, %q", code, errs)
	}
	f.err = status.Error(codes.FailedPrecondition, "r100 is the last of its keyspace: it has no right neighbour")
	if _, errs, code := cairn(t, nil, "range", "merge", "--keyspace", "shards", "--key", "a", "--host", address); code != exitFailed || errs != "cairn: range merge: r100 is the last of its keyspace: it has no right neighbour\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
}
