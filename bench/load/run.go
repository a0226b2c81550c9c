package load

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	dialTimeout = 5 * time.Second
	// errorPause keeps a client whose operations fail at once from burning the CPU that is being measured.
	errorPause = 10 * time.Millisecond
	// poolBytes of random data, of which values are cut out at random places: cheaper than drawing each anew.
	poolBytes = 1 << 20
)

// The phases of a run.
const (
	warming int32 = iota
	counting
	over
)

// run is the state that the clients of one run share.
type run struct {
	Config
	conns []*clientv3.Client
	pool  []byte
	phase atomic.Int32
}

// Run carries out one run and tells emit of its events as they happen. It fails if nothing could be measured; single
// failed operations are counted in the report.
func Run(ctx context.Context, c Config, emit func(Event) error) error {
	if err := c.Validate(); err != nil {
		return err
	}
	r := &run{Config: c, pool: make([]byte, poolBytes+c.ValueBytes)}
	random := rand.NewChaCha8([32]byte{byte(c.Seed), byte(c.Seed >> 8), byte(c.Seed >> 16), byte(c.Seed >> 24)})
	if _, err := random.Read(r.pool); err != nil {
		return err
	}
	defer r.close()
	if err := r.dial(ctx); err != nil {
		return err
	}
	if c.Op == Preload {
		return r.preload(ctx, emit)
	}
	return r.loop(ctx, emit)
}

// dial makes each connection and proves it with one linearizable read.
func (r *run) dial(ctx context.Context) error {
	for i := range r.Conns {
		endpoint := r.Endpoints[i%len(r.Endpoints)]
		conn, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: dialTimeout, Context: ctx})
		if err != nil {
			return fmt.Errorf("%s: %w", endpoint, err)
		}
		r.conns = append(r.conns, conn)
		first, cancel := context.WithTimeout(ctx, r.OpTimeout)
		_, err = conn.Get(first, Key(0))
		cancel()
		if err != nil {
			return fmt.Errorf("%s: the first read: %w", endpoint, err)
		}
	}
	return nil
}

func (r *run) close() {
	for _, c := range r.conns {
		_ = c.Close() // nothing is under way, and nothing rests on how it ends
	}
}

// tally is what one client counted.
type tally struct {
	ended, errors int
	first         error
	latencies     []time.Duration
}

// loop runs the clients through the phases and puts their tallies together.
func (r *run) loop(ctx context.Context, emit func(Event) error) error {
	tallies := make([]tally, r.Clients)
	var clients sync.WaitGroup
	for i := range tallies {
		clients.Go(func() { r.client(ctx, i, &tallies[i]) })
	}
	began, ended, err := r.phases(ctx, emit)
	r.phase.Store(over)
	clients.Wait()
	if err != nil {
		return err
	}
	report := merge(tallies)
	report.Seconds = ended.Sub(began).Seconds()
	if report.Ops == 0 {
		return fmt.Errorf("no operation succeeded; %d errors, the first: %s", report.Errors, report.FirstError)
	}
	return emit(Event{Event: Done, Report: &report})
}

// phases lets the warm-up and the counting pass.
func (r *run) phases(ctx context.Context, emit func(Event) error) (began, ended time.Time, err error) {
	if err := wait(ctx, r.Warmup); err != nil {
		return began, ended, err
	}
	began = time.Now()
	r.phase.Store(counting)
	if err := emit(Event{Event: Begin}); err != nil {
		return began, ended, err
	}
	if err := wait(ctx, r.Length-time.Since(began)); err != nil {
		return began, ended, err
	}
	r.phase.Store(over)
	ended = time.Now()
	return began, ended, emit(Event{Event: End})
}

// client is one closed loop.
func (r *run) client(ctx context.Context, id int, t *tally) {
	random := rand.New(rand.NewPCG(r.Seed, uint64(id)))
	for n := id; ctx.Err() == nil; n++ {
		phase := r.phase.Load()
		if phase == over {
			return
		}
		began := time.Now()
		err := r.operate(ctx, r.conns[n%len(r.conns)], random)
		took := time.Since(began)
		if err != nil {
			t.errors++
			t.first = cmp.Or(t.first, err)
			_ = wait(ctx, errorPause) // the loop looks at ctx itself
			continue
		}
		if r.phase.Load() == counting {
			t.ended++
		}
		if phase == counting {
			t.latencies = append(t.latencies, took)
		}
	}
}

// operate carries out one operation, and checks what came back.
func (r *run) operate(ctx context.Context, conn *clientv3.Client, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, r.OpTimeout)
	defer cancel()
	key := Key(random.IntN(r.Keys))
	if r.Op == Put {
		_, err := conn.Put(ctx, key, r.value(random))
		return err
	}
	resp, err := conn.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(resp.Kvs) != 1 || len(resp.Kvs[0].Value) != r.ValueBytes {
		return fmt.Errorf("reading %q gave %d keys and not the one value of %d bytes", key, len(resp.Kvs), r.ValueBytes)
	}
	return nil
}

// Key is the n-th key.
func Key(n int) string { return fmt.Sprintf("key/%012d", n) }

func (r *run) value(random *rand.Rand) string {
	at := random.IntN(poolBytes)
	return string(r.pool[at : at+r.ValueBytes])
}

// merge puts the tallies of all clients together.
func merge(tallies []tally) Report {
	var report Report
	var all []time.Duration
	for _, t := range tallies {
		report.Ops += t.ended
		report.Errors += t.errors
		if t.first != nil && report.FirstError == "" {
			report.FirstError = t.first.Error()
		}
		all = append(all, t.latencies...)
	}
	slices.Sort(all)
	report.P50, report.P99, report.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	return report
}

// quantile is the smallest of the sorted values that is not below a share q of them; 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	at := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// wait lets d pass.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
