package serve

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// BenchmarkFanOut is what it costs to send one event to each of a thousand watches, that are spread over some connections. The clients
// only read, without looking at it; that is part of the CPU.
func BenchmarkFanOut(b *testing.B) {
	const watches = 1000
	for _, conns := range []int{1, 10, watches} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			backend := &crowdBackend{memberBackend(), make(chan *crowdStream, conns), make(chan int, conns)}
			l := listen(b)
			serveOn(b, l, Config{Backend: backend})
			var streams []*crowdStream
			for range conns {
				readAll(b, l.Addr().String())
				streams = append(streams, <-backend.opened)
			}
			outs := make([]watch.Out, watches/conns)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				events := []*watch.Event{{Key: []byte("k"), Revision: 1, Wire: make([]byte, 150)}}
				for i := range outs {
					outs[i] = watch.Out{Kind: watch.Events, Watch: int64(i), Revision: 1, Events: events}
				}
				outs[len(outs)-1].Bytes = base.WatchSentBytes // so that it is told when all are sent
				for _, s := range streams {
					s.Outs(outs)
				}
				for range streams {
					<-backend.sent
				}
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N*watches), "cpu-ns/event")
		})
	}
}

// cpu is what this process has used, in ns: readers and all.
func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// crowdBackend has the benchmark have the streams that clients open.
type crowdBackend struct {
	*fakeBackend
	opened chan *crowdStream
	sent   chan int
}

type crowdStream struct {
	WatchSink
	b *crowdBackend
}

func (b *crowdBackend) OpenWatches(sink WatchSink) (WatchStream, error) {
	s := &crowdStream{sink, b}
	b.opened <- s
	return s, nil
}

func (s *crowdStream) Create(int64, watch.Spec) {}
func (s *crowdStream) Cancel(int64)             {}
func (s *crowdStream) Progress()                {}
func (s *crowdStream) Sent(bytes int)           { s.b.sent <- bytes }
func (s *crowdStream) Close()                   {}

// readAll opens a stream of watches and reads whatever is sent on its connection.
func readAll(b *testing.B, address string) {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	var head, ask bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", pb.Watch_Watch_FullMethodName}, {":authority", address},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			b.Fatal(err)
		}
	}
	const window = 1<<31 - 1 - 1<<16 // more than is sent
	ask.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&ask, nil)
	for _, err := range []error{
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}), fr.WriteWindowUpdate(0, window),
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	if _, err := conn.Write(ask.Bytes()); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn) // until it is closed
	}()
	b.Cleanup(func() { _ = conn.Close(); <-ended })
}
