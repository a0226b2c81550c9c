package watches

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that requests go through
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The watchers speak etcd's protocol without etcd's client: a response is not decoded but counted, so that the machine's two cores
// are the servers' as far as possible, and the same on both sides.

// response is what of a WatchResponse is looked at.
type response struct {
	watch             int64
	created, canceled bool
	reason            string
	events            int
	first             []byte // the value of the first event; until the next response
	revision          int64  // of the last event
	buffer            []byte
}

// counting is a codec that takes responses apart and leaves requests to the usual one.
type counting struct{ encoding.CodecV2 }

func (c counting) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*response)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	n := data.Len()
	if cap(r.buffer) < n {
		r.buffer = make([]byte, n)
	}
	data.CopyTo(r.buffer[:n])
	return r.parse(r.buffer[:n])
}

var errWire = errors.New("a response that is none")

// each calls f with every field of a message.
func each(b []byte, f func(num protowire.Number, v uint64, bytes []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		if err := f(num, v, bytes); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (r *response) parse(b []byte) error {
	*r = response{buffer: r.buffer}
	var last []byte
	err := each(b, func(num protowire.Number, v uint64, bytes []byte) error {
		switch num {
		case 2:
			r.watch = int64(v)
		case 3:
			r.created = v != 0
		case 4:
			r.canceled = v != 0
		case 6:
			r.reason = string(bytes)
		case 11:
			r.events++
			last = bytes
			if r.events == 1 {
				return r.event(bytes)
			}
		}
		return nil
	})
	if err == nil && r.events > 1 {
		first := r.first
		err = r.event(last)
		r.first = first
	}
	return err
}

func (r *response) event(b []byte) error {
	return each(b, func(num protowire.Number, _ uint64, kv []byte) error {
		if num != 2 {
			return nil
		}
		return each(kv, func(num protowire.Number, v uint64, bytes []byte) error {
			switch num {
			case 3:
				r.revision = int64(v)
			case 5:
				r.first = bytes
			}
			return nil
		})
	})
}

// stamp is a value that says when it was written; sent reads it.
func stamp(size int) string {
	b := make([]byte, max(size, 8))
	binary.BigEndian.PutUint64(b, uint64(time.Now().UnixNano()))
	return string(b)
}

func sent(value []byte) (time.Time, bool) {
	if len(value) < 8 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(value))), true
}

func connect(endpoint string) (*grpc.ClientConn, error) {
	const window = 1 << 20 // what a client that keeps up needs
	return grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
}

// stream is one Watch stream.
type stream struct{ grpc.ClientStream }

func watch(ctx context.Context, conn *grpc.ClientConn) (stream, error) {
	desc := &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: true}
	s, err := conn.NewStream(ctx, desc, pb.Watch_Watch_FullMethodName,
		grpc.ForceCodecV2(counting{encoding.GetCodecV2("proto")}), grpc.MaxCallRecvMsgSize(1<<30))
	return stream{s}, err
}

// create makes n watches on the stream and waits until all are there.
func (s stream) create(n int, req *pb.WatchCreateRequest) error {
	go func() { // what fails here fails below, too
		for range n {
			if s.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}) != nil {
				return
			}
		}
	}()
	var r response
	for range n {
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		if !r.created || r.canceled {
			return fmt.Errorf("a watch was not made: %s", r.reason)
		}
	}
	return nil
}
