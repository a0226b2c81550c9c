// Package serve answers the clients of a node: decode, call, encode. It holds no state of the cluster; what a
// handler needs of the node is in Backend, and every error goes through the one table in errors.go.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/electionpb"
	"github.com/cairndb/cairn/api/lockpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// Membership is how nodes become and stay members; node/join does it.
type Membership interface {
	Init(context.Context) (*clusterpb.InitResponse, error)
	Consent(context.Context, *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error)
	Join(context.Context, *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error)
	Announce(context.Context, *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error)
}

// Config says what a Server works with.
type Config struct {
	Backend    Backend
	Membership Membership
	Operator   Operator    // nil: what operators ask for is not answered
	Dial       join.Dialer // to other nodes, for the status of the whole cluster
	Logger     *slog.Logger
	// MayServe says why clients are not to be served now; nil: they are. A nil function: always.
	MayServe func() error
	// AwaitService is MayServe for a request that has come and can wait until its context ends. A nil function: nothing waits.
	AwaitService func(context.Context) error
	// Bound says which keyspace the clients of a listener mean that name none, by the listener's port.
	Bound map[int]string

	MaxRequestBytes int           // of one write
	MaxTxnOps       int           // of one transaction
	RequestTimeout  time.Duration // of a request that came without a deadline
	StatusTimeout   time.Duration // of one other node's answer to a status question
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	if c.Dial == nil {
		c.Dial = join.Dial
	}
	if c.MayServe == nil {
		c.MayServe = func() error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, base.MaxRequestBytes)
	c.MaxTxnOps = cmp.Or(c.MaxTxnOps, base.MaxTxnOps)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, base.RequestTimeout)
	c.StatusTimeout = cmp.Or(c.StatusTimeout, base.StatusTimeout)
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Backend == nil {
		errs = append(errs, errors.New("no backend"))
	}
	if c.Membership == nil {
		errs = append(errs, errors.New("no membership"))
	}
	if c.MaxRequestBytes < 0 || c.MaxTxnOps < 0 || c.RequestTimeout < 0 || c.StatusTimeout < 0 {
		errs = append(errs, errors.New("limits cannot be negative"))
	}
	return errors.Join(errs...)
}

// Server is a grpc.Server with everything registered that a node answers; other services (the transport) may be
// registered too before Serve. It may answer HTTP on the same listeners (http.go).
type Server struct {
	*grpc.Server
	cfg    Config
	health *health.Server
	member atomic.Bool // latched: the node is part of a cluster
	calls  *calls
	counts counts

	web   web
	inner sync.WaitGroup // the server of calls from within

	streams sync.WaitGroup // handlers of streams without an end of their own
	ending  chan struct{}  // closed: those streams end
	once    sync.Once

	watching watching
	plans    sync.Pool // of *plan, for the streams that send
	last     last
}

// NewServer makes the server. Nothing is served before Serve.
func NewServer(cfg Config) (*Server, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	s := &Server{cfg: cfg, health: health.NewServer(), calls: newCalls(),
		ending: make(chan struct{})}
	s.plans.New = func() any { return newPlan(&s.last) }
	// A frame between nodes may be larger than a client's request; that one is bounded by its handler, so that the
	// client is told what is wrong in etcd's words.
	maxRecv := max(cfg.MaxRequestBytes, base.MaxFrameBytes) + base.RequestOverheadBytes
	// Stream workers (2, 16, 64 of them) changed nothing in BenchmarkPut with 256 clients, so there are none.
	s.Server = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRecv),
		grpc.WaitForHandlers(true), // after a stop no handler uses the backend
		grpc.MaxConcurrentStreams(base.ServerStreams),
		grpc.ReadBufferSize(base.ServerBufferBytes),
		grpc.WriteBufferSize(base.ServerBufferBytes),
		grpc.InitialWindowSize(base.ServerWindowBytes),
		grpc.InitialConnWindowSize(base.ServerWindowBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: base.ClientKeepAliveMin}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: base.ClientKeepAliveEvery, Timeout: base.ClientKeepAliveWait}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	s.register()
	s.SetServing(cfg.Backend.Identity().ClusterID != 0)
	return s, nil
}

func (s *Server) register() {
	pb.RegisterKVServer(s.Server, &kvService{cfg: &s.cfg})
	pb.RegisterClusterServer(s.Server, &memberService{cfg: &s.cfg})
	pb.RegisterMaintenanceServer(s.Server, &maintenanceService{cfg: &s.cfg, streams: &s.streams})
	pb.RegisterWatchServer(s.Server, &watchService{s: s})
	pb.RegisterLeaseServer(s.Server, &leaseService{cfg: &s.cfg})
	pb.RegisterAuthServer(s.Server, &authService{cfg: &s.cfg})
	contests := contestService{cfg: &s.cfg, kv: kvService{cfg: &s.cfg}}
	lockpb.RegisterLockServer(s.Server, &lockService{contestService: contests})
	electionpb.RegisterElectionServer(s.Server, &electionService{contestService: contests})
	clusterpb.RegisterClusterServer(s.Server, &clusterService{cfg: &s.cfg})
	healthpb.RegisterHealthServer(s.Server, s.health)
	reflection.Register(s.Server)
}

// SetServing says whether the node answers client requests: true when it has become part of a cluster, false when
// it begins to stop, or is fenced. Health says so to whoever asks or watches. Who watches keys of one that is fenced is to go elsewhere.
func (s *Server) SetServing(ok bool) {
	if err := s.cfg.MayServe(); err != nil && !ok {
		s.watching.end(err)
	}
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		st = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", st)
	s.health.SetServingStatus(pb.KV_ServiceDesc.ServiceName, st)
}
