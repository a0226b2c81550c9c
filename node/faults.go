package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/faultpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup/support"
)

// faults makes the node's disk and clock unwell on request: for tests of real processes, since libraries that fake a
// clock do not reach Go programs. Without Config.UnsafeTesting every request is refused, the disk has no wrapper and the
// clock is the machine's.
//
// What a fault of the clock reaches: its rate, all that reads the store's clock, which is support, leases, elections,
// heartbeats, deadlines of requests; its steps, the wall clock. Timers of the runtime run on true time: they wake a loop, and
// what the loop then does rests on the clock.
type faults struct {
	faultpb.UnimplementedFaultsServer
	logger *slog.Logger
	disk   *engine.DiskFaults  // nil: refused
	clock  func() base.Instant // nil: the machine's
	skew   skew                // of the store's clock
	wall   skew                // of the wall clock
	member func() *member      // nil before the node is part of a cluster
}

func newFaults(cfg *Config) *faults {
	f := &faults{logger: cfg.Logger}
	if cfg.UnsafeTesting {
		f.disk, f.clock = engine.NewDiskFaults(), f.skew.now
		cfg.Logger.Warn("UNSAFE: whoever reaches this node can make its disk and its clock fail (--unsafe-testing)")
	}
	return f
}

// SetFaults implements faultpb.FaultsServer.
func (f *faults) SetFaults(_ context.Context, req *faultpb.SetFaultsRequest) (*faultpb.SetFaultsResponse, error) {
	if f.disk == nil {
		return nil, status.Error(codes.FailedPrecondition, "faults are for tests: the node is to be started with --unsafe-testing")
	}
	d, c := req.GetDisk(), req.GetClock()
	if m := c.GetDriftMillionths(); max(m, -m) > support.MaxDrift*1000 {
		return nil, status.Errorf(codes.InvalidArgument, "a clock that is wrong by %d millionths: leases allow for %d", m, support.MaxDrift*1000)
	}
	f.logger.Warn("faults", "disk", d, "clock", c)
	f.disk.Set(engine.DiskState{
		StallSyncs: d.GetStallSyncs(), Slow: time.Duration(d.GetSlowMicros()) * time.Microsecond, FailReads: d.GetFailReads(),
		FailWrites: d.GetFailWrites(), FailSyncs: d.GetFailSyncs(), Full: d.GetFull(),
	})
	f.skew.set(0, c.GetDriftMillionths(), false)
	f.wall.set(time.Duration(c.GetStepNanos()), c.GetDriftMillionths(), c.GetFrozen())
	return &faultpb.SetFaultsResponse{ClockNanos: int64(f.skew.now())}, nil
}

// maxNewRanges bounds one request: they are written as one batch.
const maxNewRanges = 1000

// CreateRanges implements faultpb.FaultsServer.
func (f *faults) CreateRanges(_ context.Context, req *faultpb.CreateRangesRequest) (*faultpb.CreateRangesResponse, error) {
	if f.disk == nil {
		return nil, status.Error(codes.FailedPrecondition, "ranges without a keyspace are for tests: the node is to be started with --unsafe-testing")
	}
	if req.First <= uint64(base.RangeDefault) || req.Count > maxNewRanges || len(req.Nodes) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "ranges begin above %d, at most %d at once, on at least one node", base.RangeDefault, maxNewRanges)
	}
	m := f.member()
	if m == nil {
		return nil, status.Error(codes.Unavailable, "the node is not part of a cluster yet")
	}
	var ds []*metapb.RangeDescriptor
	for id := req.First; id < req.First+req.Count; id++ {
		d := &metapb.RangeDescriptor{RangeId: id, KeyspaceId: id, Generation: 1, NextReplicaId: uint64(len(req.Nodes) + 1)}
		for i, n := range req.Nodes {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		ds = append(ds, d)
	}
	if err := m.store.PlaceReplicas(ds); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &faultpb.CreateRangesResponse{}, nil
}

// unixMicros is the wall clock as it seems to be.
func (f *faults) unixMicros() int64 {
	now := time.Now()
	if f.disk != nil {
		now = now.Add(f.wall.now().Sub(store.Now()))
	}
	return now.UnixMicro()
}

// skew is a clock that differs from the machine's.
type skew struct {
	mu     sync.Mutex
	at     base.Instant // of the machine's clock, when it was last changed
	shown  base.Instant // and what this one showed then
	drift  int64        // parts in a million
	frozen bool
}

func (s *skew) now() base.Instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(store.Now())
}

func (s *skew) read(machine base.Instant) base.Instant {
	if s.frozen {
		return s.shown
	}
	d := int64(machine - s.at)
	return s.shown + base.Instant(d+d/1_000_000*s.drift+d%1_000_000*s.drift/1_000_000)
}

func (s *skew) set(step time.Duration, drift int64, frozen bool) {
	machine := store.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown, s.at = max(1, s.read(machine).Add(step)), machine
	s.drift, s.frozen = drift, frozen
}
