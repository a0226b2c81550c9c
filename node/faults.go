package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/faultpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/node/store"
)

// faults makes the node's disk and clock unwell on request: for tests of real processes, since libraries that fake a
// clock do not reach Go programs. Without Config.UnsafeTesting every request is refused, the disk has no wrapper and the
// clock is the machine's.
//
// What a fault of the clock reaches: all that reads the store's clock, which is elections, heartbeats, reads that are
// given up, deadlines of requests. Timers of the runtime run on true time: they wake a loop, and what the loop then does
// rests on the clock.
type faults struct {
	faultpb.UnimplementedFaultsServer
	logger *slog.Logger
	disk   *engine.DiskFaults  // nil: refused
	clock  func() base.Instant // nil: the machine's
	skew   skew
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
	f.logger.Warn("faults", "disk", d, "clock", c)
	f.disk.Set(engine.DiskState{
		StallSyncs: d.GetStallSyncs(), Slow: time.Duration(d.GetSlowMicros()) * time.Microsecond, FailReads: d.GetFailReads(),
		FailWrites: d.GetFailWrites(), FailSyncs: d.GetFailSyncs(), Full: d.GetFull(),
	})
	f.skew.set(time.Duration(c.GetStepNanos()), c.GetDriftMillionths(), c.GetFrozen())
	return &faultpb.SetFaultsResponse{ClockNanos: int64(f.skew.now())}, nil
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
