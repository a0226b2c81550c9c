package watches

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The watchers speak etcd's protocol without etcd's client, and without gRPC's: frames are read and responses counted, so that the
// machine's two cores are the servers' as far as possible, and the same on both sides.

// response is what of a WatchResponse is looked at.
type response struct {
	watch             int64
	created, canceled bool
	reason            string
	events            int
	first             []byte // the value of the first event; until the next response
	revision          int64  // of the last event
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
	*r = response{}
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

// stream is one Watch stream, and all that is on its connection. It is read by one goroutine; closing it ends the reading.
type stream struct {
	conn  net.Conn
	fr    *http2.Framer
	write sync.Mutex
	rest  []byte // of a message of which not all has come
	data  []byte // messages that were read and not looked at
	taken uint32 // bytes that the server was not told of yet
}

// The windows that the server is given, and after how many bytes it is given more: what it sends is never held up by them.
const (
	window     = 1 << 30
	windowMore = 64 << 20
	streamID   = 1
)

func watch(endpoint string) (_ *stream, err error) {
	conn, err := net.Dial("tcp", endpoint)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	const buffer = 256 << 10
	s := &stream{conn: conn, fr: http2.NewFramer(conn, bufio.NewReaderSize(conn, buffer))}
	s.fr.SetReuseFrames()
	s.fr.SetMaxReadFrameSize(1 << 20)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := s.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return nil, err
	}
	if err := s.fr.WriteWindowUpdate(0, window); err != nil {
		return nil, err
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", pb.Watch_Watch_FullMethodName}, {":authority", endpoint},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	return s, s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: head.Bytes(), EndHeaders: true})
}

func (s *stream) close() error { return s.conn.Close() }

func (s *stream) send(m proto.Message) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefix), m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-prefix))
	s.write.Lock()
	defer s.write.Unlock()
	return s.fr.WriteData(streamID, false, b)
}

// prefix is what stands before each message: whether it is compressed, and its length.
const prefix = 5

// next reads the next response.
func (s *stream) next(r *response) error {
	for {
		if m, ok := s.message(); ok {
			return r.parse(m)
		}
		if err := s.frame(); err != nil {
			return err
		}
	}
}

// message is the next one that has come whole; it is valid until the next frame is read.
func (s *stream) message() ([]byte, bool) {
	if len(s.rest) == 0 { // most messages lie within a frame
		if m, ok := cut(&s.data); ok {
			return m, true
		}
		s.rest, s.data = append(s.rest, s.data...), nil
		return nil, false
	}
	s.rest, s.data = append(s.rest, s.data...), nil
	all := s.rest
	m, ok := cut(&all)
	if ok {
		s.data, s.rest = all, s.rest[:0]
		if len(all) > 0 {
			s.data = bytes.Clone(all)
		}
	}
	return m, ok
}

func cut(b *[]byte) ([]byte, bool) {
	if len(*b) < prefix {
		return nil, false
	}
	n := prefix + int(binary.BigEndian.Uint32((*b)[1:]))
	if len(*b) < n {
		return nil, false
	}
	m := (*b)[prefix:n]
	*b = (*b)[n:]
	return m, true
}

// frame reads one frame.
func (s *stream) frame() error {
	f, err := s.fr.ReadFrame()
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		s.data = f.Data()
		s.taken += uint32(f.Length)
		if s.taken < windowMore {
			return nil
		}
		s.write.Lock()
		defer s.write.Unlock()
		err := errors.Join(s.fr.WriteWindowUpdate(0, s.taken), s.fr.WriteWindowUpdate(streamID, s.taken))
		s.taken = 0
		return err
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		s.write.Lock()
		defer s.write.Unlock()
		return s.fr.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		s.write.Lock()
		defer s.write.Unlock()
		return s.fr.WritePing(true, f.Data)
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the server ended the stream: %s", f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server ended the connection: %s", f.ErrCode)
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			return errors.New("the server ended the stream")
		}
	}
	return nil
}

// expect has reading fail that goes on until then; 0: it may take any time.
func (s *stream) expect(within time.Duration) {
	at := time.Time{}
	if within > 0 {
		at = time.Now().Add(within)
	}
	_ = s.conn.SetReadDeadline(at) // what fails is the reading
}

// create makes n watches on the stream and waits until all are there: some at a time, for the server's window is small.
func (s *stream) create(n int, req *pb.WatchCreateRequest) error {
	const atOnce = 200
	var r response
	defer s.expect(0)
	for n > 0 {
		some := min(n, atOnce)
		s.expect(time.Minute)
		for range some {
			if err := s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
				return err
			}
		}
		for range some {
			if err := s.next(&r); err != nil {
				return err
			}
			if !r.created || r.canceled {
				return fmt.Errorf("a watch was not made: %s", r.reason)
			}
		}
		n -= some
	}
	return nil
}

// connect is for what goes through gRPC.
func connect(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
