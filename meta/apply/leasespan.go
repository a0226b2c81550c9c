package apply

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
)

// The spans of a lease, or of a guest, are in order, apart from each other and not empty: what touches is one. An empty end is the end of the
// keyspace.

// addSpan returns the union of spans and one more. What it returns shares nothing that is changed. Above a bound, if it is not 0, two
// neighbours become one, with what is between them.
func addSpan(spans []*kvpb.LeaseSpan, add *kvpb.LeaseSpan, most int) []*kvpb.LeaseSpan {
	add = &kvpb.LeaseSpan{Start: add.Start, End: add.End}
	out := make([]*kvpb.LeaseSpan, 0, len(spans)+1)
	at := 0 // where add is to be
	for _, s := range spans {
		switch {
		case len(s.End) > 0 && bytes.Compare(s.End, add.Start) < 0:
			out = append(out, s)
			at++
		case len(add.End) > 0 && bytes.Compare(add.End, s.Start) < 0:
			out = append(out, s)
		default:
			join(add, s)
		}
	}
	out = slices.Insert(out, at, add)
	if most > 0 && len(out) > most {
		i := min(at, len(out)-2)
		both := &kvpb.LeaseSpan{Start: out[i].Start, End: out[i+1].End}
		out = slices.Replace(out, i, i+2, both)
	}
	return out
}

// join widens a by b, which touches it.
func join(a, b *kvpb.LeaseSpan) {
	if bytes.Compare(b.Start, a.Start) < 0 {
		a.Start = b.Start
	}
	if len(b.End) == 0 || len(a.End) > 0 && bytes.Compare(a.End, b.End) < 0 {
		a.End = b.End
	}
}

// clipSpan is the part of a span in [start, end). Nil: there is none.
func clipSpan(s *kvpb.LeaseSpan, start, end []byte) *kvpb.LeaseSpan {
	if s == nil {
		return nil
	}
	out := &kvpb.LeaseSpan{Start: s.Start, End: s.End}
	if bytes.Compare(out.Start, start) < 0 {
		out.Start = start
	}
	if len(end) > 0 && (len(out.End) == 0 || bytes.Compare(end, out.End) < 0) {
		out.End = end
	}
	if len(out.End) > 0 && bytes.Compare(out.Start, out.End) >= 0 {
		return nil
	}
	return out
}

// clipSpans is what of spans lies in [start, end).
func clipSpans(spans []*kvpb.LeaseSpan, start, end []byte) (out []*kvpb.LeaseSpan) {
	for _, s := range spans {
		if s = clipSpan(s, start, end); s != nil {
			out = append(out, s)
		}
	}
	return out
}

func sameSpans(a, b []*kvpb.LeaseSpan) bool {
	return slices.EqualFunc(a, b, func(x, y *kvpb.LeaseSpan) bool { return proto.Equal(x, y) })
}
