package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/cairndb/cairn/bench/closed"
)

const (
	dialTimeout = 5 * time.Second
	// poolBytes of random data, of which values are cut out at random places: cheaper than drawing each anew.
	poolBytes = 1 << 20
)

// run is what the clients of one run share.
type run struct {
	Config
	conns []*clientv3.Client
	pool  []byte
}

// Run carries out one run and tells emit of its events as they happen. It fails if nothing could be measured; single
// failed operations are counted in the report.
func Run(ctx context.Context, c Config, emit func(closed.Event) error) error {
	if err := c.Validate(); err != nil {
		return err
	}
	r := &run{Config: c, pool: make([]byte, poolBytes+c.ValueBytes)}
	random := rand.New(rand.NewPCG(c.Seed, poolBytes))
	for i := range r.pool {
		r.pool[i] = byte(random.Uint32())
	}
	defer r.close()
	if c.Keyspace != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, KeyspaceHeader, c.Keyspace)
	}
	if err := r.dial(ctx); err != nil {
		return err
	}
	if c.Op == Preload {
		return r.preload(ctx, emit)
	}
	return closed.Run(ctx, c.Config, r.operate, emit)
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
		first, cancel := context.WithTimeout(ctx, r.Timeout)
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

// operate carries out one operation, and checks what came back.
func (r *run) operate(ctx context.Context, client, n int, random *rand.Rand) error {
	conn := r.conns[(client+n)%len(r.conns)]
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
