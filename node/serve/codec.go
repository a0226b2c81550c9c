package serve

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this one wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cairndb/cairn/meta/watch"
)

// codec is gRPC's own for protobuf, and lets one message through that is encoded already: a response to a watch. An event is encoded
// once, when it is applied, and all who watch it are sent the same bytes.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*encoded); ok {
		return r.message, nil
	}
	return c.CodecV2.Marshal(v)
}

// encoded is a message in its bytes. They are shared, and no pool wants them back. It has room for what most messages consist of, so that
// many are made at once (plan.encode) and none of them is an allocation.
type encoded struct {
	message mem.BufferSlice
	few     [2]mem.Buffer
	head    mem.SliceBuffer
}

// The fields of etcdserverpb.WatchResponse and ResponseHeader.
const (
	responseHeader, responseWatch, responseCreated, responseCanceled           = 1, 2, 3, 4
	responseCompacted, responseReason, responseFragment, responseEvents        = 5, 6, 7, 11
	headerCluster, headerMember, headerRevision, headerTerm                    = 1, 2, 3, 4
	sharedBytes                                                         int    = 4 << 10 // an event of that size is not copied to others
	responseBytes                                                       int    = 80      // room for all but events and reason
	yes                                                                 uint64 = 1
)

// origin is what the headers of a stream's responses have in common.
type origin struct {
	cluster, member uint64
	term            func() uint64 // as it is now
}

// head appends a response without its events and without what comes behind them.
func (h origin) head(b []byte, o *watch.Out, term uint64) []byte {
	size := sizeNumber(h.cluster) + sizeNumber(h.member) + sizeNumber(uint64(o.Revision)) + sizeNumber(term)
	b = protowire.AppendVarint(protowire.AppendTag(b, responseHeader, protowire.BytesType), uint64(size))
	b = appendNumber(b, headerCluster, h.cluster)
	b = appendNumber(b, headerMember, h.member)
	b = appendNumber(b, headerRevision, uint64(o.Revision))
	b = appendNumber(b, headerTerm, term)
	b = appendNumber(b, responseWatch, uint64(o.Watch))
	if o.Kind == watch.Created || o.Kind == watch.Canceled && o.Watch == noWatch {
		b = appendNumber(b, responseCreated, yes)
	}
	if o.Kind == watch.Canceled {
		b = appendNumber(b, responseCanceled, yes)
	}
	b = appendNumber(b, responseCompacted, uint64(o.Compacted))
	if o.Reason != "" {
		b = protowire.AppendString(protowire.AppendTag(b, responseReason, protowire.BytesType), o.Reason)
	}
	if o.Fragment {
		b = appendNumber(b, responseFragment, yes)
	}
	return b
}

// sizeNumber is what a number takes as a field below 16.
func sizeNumber(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// wireOf is an event as a watch wants it.
func wireOf(e *watch.Event, prev bool) []byte {
	if prev && e.WithPrev != nil {
		return e.WithPrev
	}
	return e.Wire
}

// section is some events as they stand in a response: many responses may share it. Small events are copied together,
// which costs less than sending each by itself; a large one is sent from where it is, whoever watches it.
type section []mem.Buffer

func newSection(runs []run) section {
	small := 0
	for _, r := range runs {
		for _, e := range r.events {
			n := len(wireOf(e, r.prev))
			small += 1 + protowire.SizeVarint(uint64(n))
			if n < sharedBytes {
				small += n
			}
		}
	}
	var s section
	b := make([]byte, 0, small)
	from := 0
	cut := func() {
		if len(b) > from {
			s = append(s, mem.SliceBuffer(b[from:len(b):len(b)]))
			from = len(b)
		}
	}
	for _, r := range runs {
		for _, e := range r.events {
			wire := wireOf(e, r.prev)
			b = protowire.AppendVarint(protowire.AppendTag(b, responseEvents, protowire.BytesType), uint64(len(wire)))
			if len(wire) < sharedBytes {
				b = append(b, wire...)
				continue
			}
			cut()
			s = append(s, mem.SliceBuffer(wire))
		}
	}
	cut()
	return s
}

// noWatch is the id of no watch: of a progress of all, and of a watch that was refused.
const noWatch = -1

// run is events that one Out has.
type run struct {
	events []*watch.Event
	prev   bool
}

// same says whether two lists of runs are the same slices.
func same(a, b []run) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].prev != b[i].prev || len(a[i].events) != len(b[i].events) || len(a[i].events) > 0 && &a[i].events[0] != &b[i].events[0] {
			return false
		}
	}
	return true
}
