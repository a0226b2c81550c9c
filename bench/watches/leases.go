package watches

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leases that are kept alive: each has its keep-alive every third of its TTL, over a few streams, and the servers are looked at
// meanwhile. Leases that expire: all are granted at about one time with a key each, nobody keeps them, and a watcher says when each key
// went. A lease that went before its TTL was over since the grant was asked for is counted as early.
const (
	aliveTTL     = 30 // seconds
	aliveStreams = 6
	expiryTTL    = 10
	expiryPrefix = "leased/"
	granters     = 64
)

// grant grants leases, and with put a key to each; asked are the times before, answered those after.
func (s *Suite) grant(ctx context.Context, x *side, ttl int64, put bool) (ids []clientv3.LeaseID, asked, answered []time.Time, err error) {
	ids, asked, answered = make([]clientv3.LeaseID, s.Leases), make([]time.Time, s.Leases), make([]time.Time, s.Leases)
	group, ctx := errgroup.WithContext(ctx)
	for g := range granters {
		group.Go(func() error {
			for i := g; i < s.Leases; i += granters {
				asked[i] = time.Now()
				l, err := x.client.Grant(ctx, ttl)
				if err != nil {
					return err
				}
				ids[i], answered[i] = l.ID, time.Now()
				if put {
					if _, err := x.client.Put(ctx, expiryPrefix+strconv.Itoa(i), "", clientv3.WithLease(l.ID)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return ids, asked, answered, group.Wait()
}

func (s *Suite) alive(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "%d leases of %d s kept alive\tkeep-alives/s\tcores, three servers\tentries in the log a keep-alive\tgrants/s\n", s.Leases, aliveTTL)
	for i := range sides {
		x := &sides[i]
		began := time.Now()
		ids, _, _, err := s.grant(ctx, x, aliveTTL, false)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		grants := float64(len(ids)) / time.Since(began).Seconds()
		a, err := s.aliveBlock(ctx, x, ids)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.3f\t%.4f\t%.0f\n", x.name, a.kept, a.cores, a.entries/a.kept/a.lasted, grants)
	}
	return w.Flush()
}

type kept struct{ kept, cores, entries, lasted float64 }

func (s *Suite) aliveBlock(ctx context.Context, x *side, ids []clientv3.LeaseID) (k kept, err error) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	var conns []*grpc.ClientConn
	defer func() {
		cancel()
		_ = group.Wait() // what failed for another reason than the end was told below
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
	}()
	for i := range aliveStreams {
		conn, err := connect(x.cluster.Endpoints[i%len(x.cluster.Endpoints)])
		if err != nil {
			return k, err
		}
		conns = append(conns, conn)
		mine := ids[i*len(ids)/aliveStreams : (i+1)*len(ids)/aliveStreams]
		group.Go(func() error { return keep(ctx, conn, mine) })
	}
	if err := wait(ctx, aliveTTL*time.Second/3); err != nil { // each has been kept once
		return k, errors.Join(err, group.Wait())
	}
	before, err := x.cluster.Usage()
	if err != nil {
		return k, err
	}
	logBefore, err := x.logged(ctx)
	if err != nil {
		return k, err
	}
	at := time.Now()
	if err := wait(ctx, aliveTTL*time.Second*2/3); err != nil {
		return k, errors.Join(err, group.Wait())
	}
	lasted := time.Since(at).Seconds()
	logAfter, err := x.logged(ctx)
	if err != nil {
		return k, err
	}
	used, err := x.used(before)
	return kept{float64(len(ids)) / (aliveTTL / 3), used.Seconds() / lasted, float64(logAfter - logBefore), lasted}, err
}

// keep keeps leases alive, each once in a third of its TTL, evenly over that time. One that is gone is an error.
func keep(ctx context.Context, conn *grpc.ClientConn, ids []clientv3.LeaseID) error {
	st, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() {
		for {
			r, err := st.Recv()
			if err == nil && r.TTL <= 0 {
				err = fmt.Errorf("lease %x is gone", r.ID)
			}
			if err != nil {
				gone <- err
				return
			}
		}
	}()
	every := aliveTTL * time.Second / 3 / time.Duration(max(len(ids), 1))
	began := time.Now()
	for n := 0; ; n++ {
		select {
		case err := <-gone:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-time.After(time.Until(began.Add(time.Duration(n) * every))):
		}
		if err := st.Send(&pb.LeaseKeepAliveRequest{ID: int64(ids[n%len(ids)])}); err != nil {
			return nil // the receiver says why
		}
	}
}

func (s *Suite) expiry(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "%d leases of %d s expire\tlate p50\tp99\tmost, ms\tearly\n", s.Leases, expiryTTL)
	for i := range sides {
		x := &sides[i]
		late, early, err := s.expiryBlock(ctx, x)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%d\n", x.name, ms(quantile(late, 0.5)), ms(quantile(late, 0.99)), ms(quantile(late, 1)), early)
	}
	return w.Flush()
}

func (s *Suite) expiryBlock(ctx context.Context, x *side) (late []time.Duration, early int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	events := x.client.Watch(ctx, expiryPrefix, clientv3.WithPrefix(), clientv3.WithFilterPut())
	var mu sync.Mutex
	went := make(map[int]time.Time)
	all := make(chan error, 1)
	go func() {
		for r := range events {
			now := time.Now()
			if err := r.Err(); err != nil {
				all <- err
				return
			}
			mu.Lock()
			for _, e := range r.Events {
				if n, err := strconv.Atoi(string(e.Kv.Key[len(expiryPrefix):])); err == nil {
					went[n] = now
				}
			}
			n := len(went)
			mu.Unlock()
			if n == s.Leases {
				all <- nil
				return
			}
		}
		all <- ctx.Err()
	}()
	_, asked, answered, err := s.grant(ctx, x, expiryTTL, true)
	if err != nil {
		return nil, 0, err
	}
	if err := <-all; err != nil {
		return nil, 0, fmt.Errorf("%d of %d leases have expired: %w", len(went), s.Leases, err)
	}
	for n, at := range went {
		if at.Before(asked[n].Add(expiryTTL * time.Second)) {
			early++
		}
		late = append(late, max(0, at.Sub(answered[n].Add(expiryTTL*time.Second))))
	}
	return late, early, nil
}
