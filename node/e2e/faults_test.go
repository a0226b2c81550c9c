package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// load writes distinct keys from several clients until stopped, and remembers what was acknowledged.
type load struct {
	cl     *clientv3.Client
	prefix string
	stop   context.CancelFunc
	wg     sync.WaitGroup

	acked   sync.Map // key → value
	writes  atomic.Int64
	fails   atomic.Int64
	lastAck atomic.Int64 // Unix nanoseconds
}

func startLoad(c *cluster, prefix string, clients int, endpoints ...string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cl: c.client(endpoints...), prefix: prefix, stop: cancel}
	for i := range clients {
		l.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key, value := fmt.Sprintf("%s/%03d/%08d", prefix, i, n), fmt.Sprintf("v%d", n)
				opctx, done := context.WithTimeout(ctx, 5*time.Second)
				_, err := l.cl.Put(opctx, key, value)
				done()
				if err != nil {
					l.fails.Add(1)
					continue
				}
				l.acked.Store(key, value)
				l.writes.Add(1)
				l.lastAck.Store(time.Now().UnixNano())
			}
		})
	}
	return l
}

// waitWrites waits until n more writes are acknowledged.
func (l *load) waitWrites(c *cluster, n int64) {
	c.t.Helper()
	goal := l.writes.Load() + n
	c.eventually(60*time.Second, func() error {
		if w := l.writes.Load(); w < goal {
			return fmt.Errorf("%d of %d writes", w, goal)
		}
		return nil
	})
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// verify reads everything back through one node and holds it against what was acknowledged.
func (l *load) verify(c *cluster, endpoint string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	resp, err := c.client(endpoint).Get(ctx, l.prefix+"/", clientv3.WithPrefix())
	if err != nil {
		c.t.Fatalf("reading everything from %s: %v", endpoint, err)
	}
	have := make(map[string]string, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		have[string(kv.Key)] = string(kv.Value)
	}
	missing := 0
	l.acked.Range(func(k, v any) bool {
		if have[k.(string)] != v.(string) {
			missing++
		}
		return true
	})
	if missing > 0 {
		c.t.Errorf("%d of %d acknowledged writes are missing at %s", missing, l.writes.Load(), endpoint)
	}
}

// kill -9 of any one node under load: the others go on, and nothing acknowledged is missing.
func TestKillOneNodeUnderLoad(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(c, "one", 8)
	l.waitWrites(c, 200)
	victims := []*proc{c.leader()} // the leader first, then the others
	for _, p := range c.procs {
		if p != victims[0] {
			victims = append(victims, p)
		}
	}
	for _, v := range victims {
		v.kill()
		l.waitWrites(c, 200)
		v.start()
		c.waitReplicated(3)
		l.waitWrites(c, 50)
	}
	l.end()
	for _, p := range c.procs {
		l.verify(c, p.addr)
	}
	t.Logf("%d writes acknowledged, %d failed or unknown", l.writes.Load(), l.fails.Load())
}

// kill -9 of all nodes under load, twice: everything acknowledged is there after the restart.
func TestKillAllNodes(t *testing.T) {
	c := startCluster(t, 3)
	for round := range 2 {
		l := startLoad(c, fmt.Sprintf("all%d", round), 8)
		l.waitWrites(c, 300)
		for _, p := range c.procs {
			p.kill()
		}
		l.end()
		for _, p := range c.procs {
			p.start()
		}
		c.waitReplicated(3)
		for _, p := range c.procs {
			l.verify(c, p.addr)
		}
	}
}

// A node that was away while the others dropped the log that it lacks comes back through a snapshot.
func TestSnapshotCatchUp(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.leader()
	away := c.procs[0]
	if away == leader {
		away = c.procs[1]
	}
	away.kill()
	cl := c.client(leader.addr)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	big := strings.Repeat("x", 256<<10)
	for i := range 400 { // 100 MiB: several times what a log keeps
		if _, err := cl.Put(ctx, fmt.Sprintf("snap/%04d", i), big); err != nil {
			t.Fatal(err)
		}
	}
	away.start()
	cl = c.client(away.addr)
	c.eventually(2*time.Minute, func() error {
		opctx, done := context.WithTimeout(ctx, 5*time.Second)
		defer done()
		resp, err := cl.Get(opctx, "snap/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
		if err != nil {
			return err
		}
		if resp.Count != 400 {
			return fmt.Errorf("%d of 400 keys", resp.Count)
		}
		return nil
	})
	if !strings.Contains(away.log.String(), "snapshot installed") {
		t.Error("the node caught up, but not through a snapshot: the test did not see what it is for")
	}
}

// A node whose store was deleted is refused under its old address, and can join as a new node when told so.
func TestDeletedStore(t *testing.T) {
	c := startCluster(t, 3)
	lost := c.procs[2]
	lost.kill()
	if err := os.RemoveAll(lost.store); err != nil {
		t.Fatal(err)
	}
	lost.start()
	if code := lost.wait(60 * time.Second); code == 0 {
		t.Fatal("a node whose store was deleted came back as if nothing had happened")
	}
	if !strings.Contains(lost.log.String(), "--replace-lost") {
		t.Errorf("the refusal does not say what to do:\n%s", lost.log)
	}
	lost.args = append(lost.args, "--replace-lost")
	lost.start()
	c.eventually(90*time.Second, func() error {
		s, err := c.status(c.procs[0])
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.Address == lost.addr && n.ID > 3 && n.State == "active" {
				return nil
			}
		}
		return errors.New("it has not joined as a new node")
	})
	c.waitReplicated(3)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := c.client(lost.addr).Put(ctx, "after", "loss"); err != nil {
		t.Fatal(err)
	}
}

// A node that is told to stop hands its leadership over and ends with success; clients of the others notice nothing
// worse than a retry.
func TestGracefulStop(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.leader()
	var others []string
	for _, p := range c.procs {
		if p != leader {
			others = append(others, p.addr)
		}
	}
	l := startLoad(c, "stop", 4, others...)
	l.waitWrites(c, 100)
	if code := leader.term(); code != 0 {
		t.Errorf("SIGTERM: exit code %d\n%s", code, leader.log)
	}
	l.waitWrites(c, 100)
	l.end()
	if n := l.fails.Load(); n > int64(4) { // one write of each client is cut off by the end of the load itself
		t.Errorf("%d writes failed during a graceful stop of the leader's node", n-4)
	}
	leader.start()
	c.waitReplicated(3)
	l.verify(c, leader.addr)
}
