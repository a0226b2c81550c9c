package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// startVia starts n nodes, each of which is told of the first alone, and waits until a range survives the loss of any.
func startVia(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	addrs := freeAddrs(t, n)
	for i, a := range addrs {
		var args []string
		if i > 0 {
			args = []string{"--join", addrs[0]}
		}
		c.procs = append(c.procs, newProc(t, fmt.Sprintf("node%d", i+1), a, args...))
		c.procs[i].start()
	}
	c.eventually(30*time.Second, func() error {
		_, err := run(10*time.Second, "init", "--host", addrs[0])
		return err
	})
	c.eventually(60*time.Second, func() error {
		s, err := c.status(c.procs[0])
		if err != nil {
			return err
		}
		for _, r := range s.Ranges {
			if len(r.Replicas) < min(n, 3) || r.Leader.Node == 0 { // how many more, is the policy's
				return fmt.Errorf("range %d (%s): %d replicas, leader %d", r.ID, r.Keyspace, len(r.Replicas), r.Leader.Node)
			}
		}
		return nil
	})
	c.findEachOther()
	return c
}

// move has a process listen elsewhere from its next start on, and join through the addresses given.
func (p *proc) move(to string, join ...string) {
	if i := slices.Index(p.args, "--join"); i >= 0 {
		p.args = slices.Delete(p.args, i, i+2)
	}
	for at, a := range p.args {
		if a == p.addr {
			p.args[at] = to
		}
	}
	p.addr = to
	for _, a := range join {
		p.args = append(p.args, "--join", a)
	}
}

// findEachOther waits until each node that runs reaches all others that do, where they are now.
func (c *cluster) findEachOther() {
	c.t.Helper()
	for _, p := range c.alive() {
		c.eventually(60*time.Second, func() error {
			s, err := c.status(p)
			if err != nil {
				return err
			}
			for _, o := range c.alive() {
				if !slices.ContainsFunc(s.Nodes, func(n statusNode) bool { return n.Address == o.addr && n.State == "active" }) {
					return fmt.Errorf("%s at %s does not find %s at %s: %+v", p.name, p.addr, o.name, o.addr, s.Nodes)
				}
			}
			return nil
		})
	}
}

// serves fails unless every node that runs serves a write, and reads what was written through another.
func (c *cluster) serves(key string) {
	c.t.Helper()
	for _, p := range c.alive() {
		cl := c.client(p.addr)
		c.eventually(60*time.Second, func() error {
			ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
			defer cancel()
			if _, err := cl.Put(ctx, key, p.name); err != nil {
				return err
			}
			got, err := cl.Get(ctx, key)
			if err == nil && (len(got.Kvs) != 1 || string(got.Kvs[0].Value) != p.name) {
				err = errors.New("another value than was written")
			}
			return err
		})
	}
}

// Each node was told of one other alone. That one and two more are started again elsewhere, and are told of nothing, while others
// are down in turn, which know of nothing either when they come back: all find each other.
func TestNodesThatMoveAreFoundAgain(t *testing.T) {
	t.Parallel()
	c := startVia(t, 5)
	to := freeAddrs(t, 3)
	for turn, at := range []struct{ moves, down int }{{0, 1}, {2, 3}, {4, 0}} {
		moved, away := c.procs[at.moves], c.procs[at.down]
		away.kill()
		moved.kill()
		moved.move(to[turn]) // nobody is told of anything any more
		moved.start()
		c.findEachOther()
		away.start()
		c.findEachOther()
		c.serves(fmt.Sprintf("turn%d", turn))
	}
}

// Every node is somewhere else at once, and nobody knows where anybody is, but that each was told a name of one other, and that
// one of the next: all find each other, and the cluster works, though no range had a leader meanwhile who could have told.
func TestClusterThatMovedAsAWholeFindsItself(t *testing.T) {
	t.Parallel()
	c := startVia(t, 5)
	c.serves("before")
	for _, p := range c.procs {
		p.kill()
	}
	to := freeAddrs(t, len(c.procs))
	for i, p := range c.procs {
		if i == 0 {
			p.move(to[0])
		} else {
			_, port, err := net.SplitHostPort(to[i-1])
			if err != nil {
				t.Fatal(err)
			}
			p.move(to[i], "dns:localhost:"+port)
		}
	}
	for _, p := range slices.Backward(c.procs) { // so that each is there before the one that it was told of
		p.start()
	}
	c.findEachOther()
	c.serves("after")
	// They need no --join from now on.
	for i, p := range c.procs {
		p.kill()
		if i > 0 {
			p.move(p.addr)
		}
	}
	for _, p := range c.procs {
		p.start()
	}
	c.findEachOther()
	c.serves("at the end")
}
