package serve

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// counts is how many calls there were of each method, and how they ended: two additions for a call, and all else when they are read.
type counts struct {
	once sync.Once
	of   map[string]*methodCounts // by full method; not changed once there is one
}

type methodCounts struct {
	kind    string // as go-grpc-prometheus names it
	started atomic.Uint64
	ended   [codes.Unauthenticated + 1]atomic.Uint64
}

// CallCount is what came of the calls of one method.
type CallCount struct {
	Service, Method string
	Kind            string // unary, client_stream, server_stream or bidi_stream
	Started         uint64
	Ended           map[codes.Code]uint64 // without those of which there were none
}

// know takes in which methods there are. Only of those are calls counted: a name that a client makes up costs no memory.
func (c *counts) know(s *grpc.Server) {
	c.once.Do(func() {
		c.of = make(map[string]*methodCounts)
		for service, info := range s.GetServiceInfo() {
			for _, m := range info.Methods {
				c.of["/"+service+"/"+m.Name] = &methodCounts{kind: kindOf(m)}
			}
		}
	})
}

func kindOf(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	}
	return "unary"
}

// begin counts a call that begins; nil: it is of no method that is known.
func (c *counts) begin(method string) *methodCounts {
	m := c.of[method]
	if m != nil {
		m.started.Add(1)
	}
	return m
}

// end counts how it ended.
func (m *methodCounts) end(err error) {
	if m == nil {
		return
	}
	code := codes.OK
	if err != nil {
		code = status.Code(err)
	}
	if int(code) >= len(m.ended) {
		code = codes.Unknown
	}
	m.ended[code].Add(1)
}

// CallCounts is what was counted since the start, of the methods that were called.
func (s *Server) CallCounts() (out []CallCount) {
	s.counts.know(s.Server)
	for full, m := range s.counts.of {
		n := m.started.Load()
		if n == 0 {
			continue
		}
		service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
		c := CallCount{Service: service, Method: method, Kind: m.kind, Started: n, Ended: make(map[codes.Code]uint64)}
		for code := range m.ended {
			if n := m.ended[code].Load(); n > 0 {
				c.Ended[codes.Code(code)] = n
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b CallCount) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Method, b.Method))
	})
	return out
}
