package watches

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/bench/proc"
)

// Fan-out: all watchers watch one key, over connections of their own, over ten, or all over one; a connection has one stream, as
// with etcd's client. Puts are made as fast as the watchers get them: at most `ahead` are put and not with everybody. The
// latency of the second figure is at half that rate, from when a put was due.
const (
	ahead     = 32
	putters   = 16
	fanoutKey = "watched"
)

// cell is one row: how many watchers over how many connections; 0: as many as watchers.
type cell struct{ watchers, conns int }

func (c cell) String() string {
	switch c.conns {
	case 0:
		return fmt.Sprintf("%d watchers, own connections", c.watchers)
	case 1:
		return fmt.Sprintf("%d watchers, one connection", c.watchers)
	}
	return fmt.Sprintf("%d watchers, %d connections", c.watchers, c.conns)
}

// found are the figures of one side's blocks of a cell.
type found struct {
	rate, p50, p99 []float64 // events/s; ms at full rate
	cpu, reader    []float64 // µs of CPU an event, of the servers and of this process, which reads
	half50, half99 []float64 // ms at half the rate
	halfRate       []float64 // puts/s
}

func (s *Suite) fanout(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "fan-out\tevents/s %s\t%s\tratio\tp99 ms\t\tCPU µs/event\t\tratio\treaders' CPU µs/event\t\tput to event at half load, p50 / p99 ms\t\n", s.Names[0], s.Names[1])
	for _, n := range s.Watchers {
		for _, conns := range s.Conns {
			c := cell{n, conns}
			var f [2]found
			if err := s.pairs(sides, func(i int, x *side) error { return s.fanoutBlock(ctx, x, c, &f[i]) }); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", c, err), w.Flush())
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s / %s\t%s / %s\n", c,
				figure(f[0].rate, 0), figure(f[1].rate, 0), figure(ratios(f[0].rate, f[1].rate), 2),
				figure(f[0].p99, 1), figure(f[1].p99, 1), figure(f[0].cpu, 2), figure(f[1].cpu, 2), figure(ratios(f[0].cpu, f[1].cpu), 2),
				figure(f[0].reader, 2), figure(f[1].reader, 2),
				figure(f[0].half50, 1), figure(f[0].half99, 1), figure(f[1].half50, 1), figure(f[1].half99, 1))
		}
	}
	return w.Flush()
}

// crowd is all watchers of a block.
type crowd struct {
	watchers int
	got      atomic.Int64 // events, by all of them
	more     chan struct{}

	mu   sync.Mutex
	took []time.Duration // of one event in a stream's response
	on   bool
	err  error

	streams []*stream
	left    atomic.Bool
	wg      sync.WaitGroup
}

// gather connects all watchers.
func (s *Suite) gather(x *side, c cell) (_ *crowd, err error) {
	g := &crowd{watchers: c.watchers, more: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.leave())
		}
	}()
	conns := c.conns
	if conns == 0 {
		conns = c.watchers
	}
	for i := range conns {
		st, err := watch(x.cluster.Endpoints[i%len(x.cluster.Endpoints)])
		if err != nil {
			return nil, err
		}
		g.streams = append(g.streams, st)
		n := (i+1)*c.watchers/conns - i*c.watchers/conns
		if err := st.create(n, &pb.WatchCreateRequest{Key: []byte(fanoutKey)}); err != nil {
			return nil, err
		}
		g.wg.Go(func() { g.receive(st) })
	}
	return g, nil
}

func (g *crowd) receive(st *stream) {
	var r response
	for {
		if err := st.next(&r); err != nil {
			if !g.left.Load() {
				g.fail(err)
			}
			return
		}
		if r.canceled {
			g.fail(fmt.Errorf("a watch was cancelled: %s", r.reason))
			return
		}
		g.got.Add(int64(r.events))
		select {
		case g.more <- struct{}{}:
		default:
		}
		if at, ok := sent(r.first); ok && r.events > 0 {
			took := time.Since(at)
			g.mu.Lock()
			if g.on {
				g.took = append(g.took, took)
			}
			g.mu.Unlock()
		}
	}
}

func (g *crowd) fail(err error) {
	g.mu.Lock()
	if g.err == nil {
		g.err = err
	}
	g.mu.Unlock()
	select {
	case g.more <- struct{}{}:
	default:
	}
}

func (g *crowd) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// count begins to count anew.
func (g *crowd) count(on bool) (took []time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	took, g.took, g.on = g.took, nil, on
	return took
}

func (g *crowd) leave() error {
	g.left.Store(true)
	var errs []error
	for _, st := range g.streams {
		errs = append(errs, st.close())
	}
	g.wg.Wait()
	return errors.Join(errs...)
}

// put puts at the given rate, or with 0 as fast as the watchers get it, until ctx ends.
func (g *crowd) put(ctx context.Context, x *side, size int, perSecond float64) (puts int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	base := g.got.Load() / int64(g.watchers)
	due := make(chan struct{})
	var wg sync.WaitGroup
	var done atomic.Int64
	for range putters {
		wg.Go(func() {
			for range due {
				if _, err := x.client.Put(ctx, fanoutKey, stamp(size)); err != nil && ctx.Err() == nil {
					g.fail(err)
				}
				done.Add(1)
			}
		})
	}
	began := time.Now()
	for n := int64(0); ctx.Err() == nil && g.failed() == nil; n++ {
		if perSecond > 0 {
			_ = wait(ctx, time.Until(began.Add(time.Duration(float64(n)/perSecond*float64(time.Second)))))
		}
		for ctx.Err() == nil && g.failed() == nil && perSecond == 0 && n-(g.got.Load()/int64(g.watchers)-base) >= ahead {
			select {
			case <-g.more:
			case <-ctx.Done():
			}
		}
		select {
		case due <- struct{}{}:
		case <-ctx.Done():
		}
	}
	close(due)
	wg.Wait()
	return done.Load(), g.failed()
}

const warm = time.Second

func (s *Suite) fanoutBlock(ctx context.Context, x *side, c cell, f *found) (err error) {
	g, err := s.gather(x, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.leave()) }()
	profiled := make(chan error, 1)
	profiled <- nil
	if s.Profiles != "" && len(f.rate) == 0 {
		<-profiled
		go func() { profiled <- s.profile(ctx, x, c) }()
	}
	full, err := s.load(ctx, x, g, 0)
	if err = errors.Join(err, <-profiled); err != nil {
		return err
	}
	perPut := full.rate / float64(c.watchers)
	f.rate, f.cpu, f.reader = append(f.rate, full.rate), append(f.cpu, full.cpu), append(f.reader, full.reader)
	f.p50, f.p99 = append(f.p50, ms(quantile(full.took, 0.5))), append(f.p99, ms(quantile(full.took, 0.99)))
	half, err := s.load(ctx, x, g, perPut/2)
	f.half50, f.half99 = append(f.half50, ms(quantile(half.took, 0.5))), append(f.half99, ms(quantile(half.took, 0.99)))
	f.halfRate = append(f.halfRate, perPut/2)
	s.Say("%s: %s: %.0f events/s (%.0f puts/s), p99 %.1f ms, %.2f µs CPU an event, %.2f of the readers; at half: p50 %.1f, p99 %.1f ms",
		x.name, c, full.rate, perPut, f.p99[len(f.p99)-1], full.cpu, full.reader, f.half50[len(f.half50)-1], f.half99[len(f.half99)-1])
	return err
}

// profile takes profiles of a side's servers and of this process while a block counts.
func (s *Suite) profile(ctx context.Context, x *side, c cell) (err error) {
	if err := wait(ctx, warm); err != nil {
		return err
	}
	prefix := filepath.Join(s.Profiles, fmt.Sprintf("%s-%d-%d", x.name, c.watchers, c.conns))
	file, err := os.Create(prefix + "-readers.pprof")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return x.cluster.Profile(ctx, s.Block-time.Second, prefix)
}

// loaded is what the watchers got in a block.
type loaded struct {
	rate        float64 // events/s
	took        []time.Duration
	cpu, reader float64 // µs an event: of the servers, and of this process, which puts and reads
}

// load puts for a block and says what the watchers got in it.
func (s *Suite) load(ctx context.Context, x *side, g *crowd, perSecond float64) (l loaded, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := g.put(ctx, x, s.Value, perSecond)
		ended <- err
	}()
	if err := wait(ctx, warm); err != nil {
		return l, err
	}
	before, err := x.cluster.Usage()
	if err != nil {
		return l, err
	}
	mine, err := proc.Of(os.Getpid())
	if err != nil {
		return l, err
	}
	g.count(true)
	from, at := g.got.Load(), time.Now()
	if err := wait(ctx, s.Block); err != nil {
		return l, err
	}
	events, lasted := g.got.Load()-from, time.Since(at)
	l.took = g.count(false)
	used, err := x.used(before)
	if err != nil {
		return l, err
	}
	now, err := proc.Of(os.Getpid())
	if err != nil {
		return l, err
	}
	cancel()
	if err := <-ended; err != nil {
		return l, err
	}
	if events == 0 {
		return l, errors.New("no watcher got anything")
	}
	l.rate = float64(events) / lasted.Seconds()
	l.cpu, l.reader = float64(used.Microseconds())/float64(events), float64((now.CPU-mine.CPU).Microseconds())/float64(events)
	return l, nil
}
