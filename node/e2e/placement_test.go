package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// placed is how many replicas and leaders the nodes have, by the ranges' own word.
type placed struct {
	ranges            int
	replicas, leaders map[uint64]int
	joint             int // ranges with a replica that is no voter
}

func (c *cluster) placed() (*placed, error) {
	s, err := c.status(c.alive()[0])
	if err != nil {
		return nil, err
	}
	p := &placed{ranges: len(s.Ranges), replicas: map[uint64]int{}, leaders: map[uint64]int{}}
	for _, r := range s.Ranges {
		if r.Leader.Node == 0 {
			return nil, fmt.Errorf("range %d has no leader", r.ID)
		}
		p.leaders[r.Leader.Node]++
		changing := false
		for _, rep := range r.Replicas {
			p.replicas[rep.Node]++
			changing = changing || rep.Role != "voter"
		}
		if changing {
			p.joint++
		}
	}
	return p, nil
}

// even says whether each of some nodes has as much as the others, within a share of the mean or one.
func even(what string, of map[uint64]int, nodes []uint64, share float64) error {
	total := 0
	for _, n := range nodes {
		total += of[n]
	}
	mean := float64(total) / float64(len(nodes))
	slack := max(share*mean, 1)
	for _, n := range nodes {
		if off := float64(of[n]) - mean; math.Abs(off) > slack {
			return fmt.Errorf("%s on node %d: %d, where the mean of %d nodes is %.1f: %v", what, n, of[n], len(nodes), mean, of)
		}
	}
	return nil
}

// add starts further nodes.
func (c *cluster) add(n int) {
	c.t.Helper()
	join := strings.Join(c.endpoints(), ",")
	for _, a := range freeAddrs(c.t, n) {
		i := len(c.procs) + 1
		p := newProc(c.t, fmt.Sprintf("node%d", i), a, "--join", join, "--locality", fmt.Sprintf("zone=z%d", i))
		c.procs = append(c.procs, p)
		p.start()
	}
}

func upTo(n uint64) (nodes []uint64) {
	for id := uint64(1); id <= n; id++ {
		nodes = append(nodes, id)
	}
	return nodes
}

// cutInto makes a sharded keyspace that is cut into n ranges.
func (c *cluster) cutInto(name string, n int) {
	c.t.Helper()
	c.cairn("keyspace", "create", name, "--sharded")
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := 1; i < n; i++ {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if _, err := c.try("range", "split", "--keyspace", name, "--key", fmt.Sprintf("k%03d", i)); err != nil {
				c.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// writer writes to all ranges of a keyspace until it is stopped, and counts.
type writer struct {
	stop         context.CancelFunc
	wg           sync.WaitGroup
	done, failed atomic.Int64
	first        atomic.Value // of the errors
}

func (c *cluster) write(name string, ranges int) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{stop: cancel}
	c.t.Cleanup(func() { cancel(); w.wg.Wait() })
	cl := c.client(c.procs[0].addr, c.procs[1].addr)
	for i := range 2 {
		w.wg.Go(func() {
			for n := i; ctx.Err() == nil; n += 2 {
				call, end := context.WithTimeout(withKeyspace(ctx, name), 5*time.Second)
				_, err := cl.Put(call, fmt.Sprintf("k%03d/%d", n%ranges, n), "v")
				end()
				switch {
				case err == nil:
					w.done.Add(1)
				case ctx.Err() == nil:
					w.failed.Add(1)
					w.first.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	return w
}

// Five nodes hold some sixty ranges, evenly, as leaders too. Two more come: replicas and leaders go to them until all seven have as
// many, while writes go on. One is lost for good: everything that it held is replaced, within the delay that the policy sets, and
// whatever change its loss broke off is ended. Last, the index says the same as the ranges.
func TestReplicasGoWhereTheyBelong(t *testing.T) {
	const n = 60
	c := startCluster(t, 5)
	// Whatever else this machine does: moves wait for nothing here.
	c.cairn("policy", "set", "failed_after=3s", "failed_after_own=3s", "pause_latency=10000%")
	c.cutInto("spread", n)
	balanced := func(nodes []uint64) func() error {
		return func() error {
			p, err := c.placed()
			switch {
			case err != nil:
				return err
			case p.ranges != n+4:
				return fmt.Errorf("%d ranges, want %d", p.ranges, n+4)
			case p.joint > 0:
				return fmt.Errorf("%d ranges are being changed", p.joint)
			}
			if err := even("replicas", p.replicas, nodes, 0.10); err != nil {
				return err
			}
			return even("leaders", p.leaders, nodes, 0.25)
		}
	}
	began := time.Now()
	c.eventually(90*time.Second, balanced(upTo(5)))
	t.Logf("five nodes are even %s after the ranges were made", time.Since(began).Round(100*time.Millisecond))

	w := c.write("spread", n)
	began = time.Now()
	c.add(2)
	c.eventually(120*time.Second, balanced(upTo(7)))
	t.Logf("seven nodes are even %s after two came", time.Since(began).Round(100*time.Millisecond))
	if w.done.Load() == 0 || w.failed.Load() > 0 {
		t.Errorf("while replicas moved %d writes succeeded and %d failed, the first: %v", w.done.Load(), w.failed.Load(), w.first.Load())
	}

	began = time.Now()
	c.procs[6].kill()
	lost := c.nodeAt(c.procs[6].addr)
	left := slices.DeleteFunc(upTo(7), func(id uint64) bool { return id == lost })
	c.eventually(120*time.Second, func() error {
		p, err := c.placed()
		switch {
		case err != nil:
			return err
		case p.replicas[lost] > 0 || p.joint > 0:
			return fmt.Errorf("node %d, which is lost, has %d replicas; %d ranges are being changed", lost, p.replicas[lost], p.joint)
		}
		return balanced(left)()
	})
	t.Logf("what the lost node held is replaced %s after it was killed", time.Since(began).Round(100*time.Millisecond))
	w.stop()
	w.wg.Wait()

	c.indexAgrees("spread", n, 3)
}

// nodeAt is the id of the node at an address.
func (c *cluster) nodeAt(addr string) uint64 {
	c.t.Helper()
	var id uint64
	c.eventually(30*time.Second, func() error {
		s, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.Address == addr {
				id = n.ID
				return nil
			}
		}
		return fmt.Errorf("no node is at %s", addr)
	})
	return id
}

// indexAgrees holds `cairn range ls` against what the ranges themselves say.
func (c *cluster) indexAgrees(keyspace string, ranges, voters int) {
	c.t.Helper()
	c.eventually(30*time.Second, func() error {
		var list []struct {
			ID       uint64 `json:"id"`
			Replicas []struct {
				Node uint64 `json:"node"`
				Role string `json:"role"`
			} `json:"replicas"`
		}
		out, err := c.try("range", "ls", "--keyspace", keyspace, "-o", "json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		s, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		own := map[uint64][]uint64{}
		for _, r := range s.Ranges {
			for _, rep := range r.Replicas {
				own[r.ID] = append(own[r.ID], rep.Node)
			}
			slices.Sort(own[r.ID])
		}
		for _, r := range list {
			var listed []uint64
			for _, rep := range r.Replicas {
				listed = append(listed, rep.Node)
			}
			if slices.Sort(listed); !slices.Equal(listed, own[r.ID]) || len(listed) != voters {
				return fmt.Errorf("the index has range %d on nodes %v, itself on %v", r.ID, listed, own[r.ID])
			}
		}
		if len(list) != ranges {
			return fmt.Errorf("the index has %d ranges, want %d", len(list), ranges)
		}
		return nil
	})
}

// A change of replicas that was broken off in the middle is ended by whoever leads next, though nobody directs it: the nodes that
// decide are killed over and over while replicas move.
func TestNoChangeIsLeftBehind(t *testing.T) {
	const n = 24
	c := startCluster(t, 4)
	c.cutInto("broken", n)
	c.add(1)
	for i := range 4 {
		c.eventually(60*time.Second, func() error {
			p, err := c.placed()
			if err == nil && p.joint == 0 && p.replicas[5] < 6*(i+1) {
				err = fmt.Errorf("nothing is being changed: %v", p.replicas)
			}
			return err
		})
		p := c.procs[i]
		p.kill()
		p.start()
	}
	c.eventually(120*time.Second, func() error {
		p, err := c.placed()
		switch {
		case err != nil:
			return err
		case p.joint > 0 || p.ranges != n+4:
			return fmt.Errorf("%d of %d ranges are being changed", p.joint, p.ranges)
		}
		return even("replicas", p.replicas, upTo(5), 0.10)
	})
	cl := c.client()
	for i := range n {
		ctx, cancel := context.WithTimeout(withKeyspace(context.Background(), "broken"), 10*time.Second)
		if _, err := cl.Put(ctx, fmt.Sprintf("k%03d", i), "v"); err != nil {
			t.Errorf("range %d: %v", i, err)
		}
		cancel()
	}
	if all, err := cl.Get(in(t, "broken"), "", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || all.Count != n {
		t.Errorf("%v, %v", all, err)
	}
}
