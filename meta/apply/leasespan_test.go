package apply

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/kv/eval"
)

// points are keys of which each stands for all up to the next.
var points = []string{"", "a", "b", "c", "d", "e", "f", "g"}

// drawSpan draws a span between two of the points, or to the end.
func drawSpan(t *rapid.T) *kvpb.LeaseSpan {
	i := rapid.IntRange(0, len(points)-1).Draw(t, "start")
	s := &kvpb.LeaseSpan{Start: []byte(points[i])}
	if j := rapid.IntRange(i+1, len(points)).Draw(t, "end"); j < len(points) {
		s.End = []byte(points[j])
	}
	return s
}

// What is added is in, and nothing else is but what a bound brings in; the spans are in order, apart, and within the bound. A clip is the
// part of them in a range, and the two parts on either side of a cut make the whole.
func TestLeaseSpans(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.SampledFrom([]int{0, 1, 2, 3}).Draw(rt, "most")
		in := map[string]bool{}
		var spans []*kvpb.LeaseSpan
		for range rapid.IntRange(0, 8).Draw(rt, "adds") {
			s := drawSpan(rt)
			for _, k := range points {
				in[k] = in[k] || eval.LeaseSpanHas([]*kvpb.LeaseSpan{s}, []byte(k))
			}
			spans = addSpan(spans, s, most)
			wellFormed(rt, spans, most)
		}
		for _, k := range points {
			if has := eval.LeaseSpanHas(spans, []byte(k)); has != in[k] && (most == 0 || !has) {
				rt.Fatalf("%q is in %v: %v", k, spans, has)
			}
		}
		cut := rapid.SampledFrom(points[1:]).Draw(rt, "cut")
		left, right := clipSpans(spans, nil, []byte(cut)), clipSpans(spans, []byte(cut), nil)
		wellFormed(rt, left, 0)
		wellFormed(rt, right, 0)
		for _, k := range points {
			has := eval.LeaseSpanHas(spans, []byte(k))
			if eval.LeaseSpanHas(left, []byte(k)) != (has && k < cut) || eval.LeaseSpanHas(right, []byte(k)) != (has && k >= cut) {
				rt.Fatalf("%v cut at %q: %v and %v", spans, cut, left, right)
			}
		}
		whole := left
		for _, s := range right {
			whole = addSpan(whole, s, 0)
		}
		if !sameSpans(whole, spans) {
			rt.Fatalf("%v cut at %q and united: %v", spans, cut, whole)
		}
	})
}

func wellFormed(t *rapid.T, spans []*kvpb.LeaseSpan, most int) {
	if most > 0 && len(spans) > most {
		t.Fatalf("%d spans: %v", len(spans), spans)
	}
	for i, s := range spans {
		empty := len(s.End) > 0 && bytes.Compare(s.Start, s.End) >= 0
		touches := i > 0 && (len(spans[i-1].End) == 0 || bytes.Compare(spans[i-1].End, s.Start) >= 0)
		if empty || touches {
			t.Fatalf("span %d of %v", i, spans)
		}
	}
}
