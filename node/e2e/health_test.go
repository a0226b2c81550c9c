package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// nodesList is `cairn node ls -o json`.
type nodesList struct {
	ToldBy uint64 `json:"told_by"`
	Nodes  []struct {
		ID          uint64   `json:"id"`
		Address     string   `json:"address"`
		State       string   `json:"state"`
		Flags       []string `json:"flags"`
		Attributes  []string `json:"attributes"`
		Generation  uint64   `json:"generation"`
		Epoch       uint64   `json:"epoch"`
		Incarnation uint64   `json:"incarnation"`
		HeardMicros int64    `json:"heard_micros"`
		Why         string   `json:"why"`
		Load        *struct {
			Replicas  uint64 `json:"replicas"`
			DiskBytes uint64 `json:"disk_bytes"`
		} `json:"load"`
	} `json:"nodes"`
}

func nodeLs(p *proc) (*nodesList, error) {
	out, err := run(10*time.Second, "node", "ls", "-o", "json", "--host", p.addr)
	if err != nil {
		return nil, err
	}
	l := &nodesList{}
	if err := json.Unmarshal([]byte(out), l); err != nil {
		return nil, err
	}
	if l.ToldBy == 0 {
		return nil, errors.New("the leader of sys has not told yet")
	}
	return l, nil
}

// waitState waits until the node at an address is in a state, and what p was told of it says so too, and returns the whole list. A
// node that is well has said that it holds its four replicas.
func (c *cluster) waitState(p *proc, address, state, why string) (l *nodesList) {
	c.t.Helper()
	c.eventually(60*time.Second, func() (err error) {
		if l, err = nodeLs(p); err != nil {
			return err
		}
		for _, n := range l.Nodes {
			if n.Address == address && (n.State != state || !strings.Contains(n.Why, why) || state == "active" && (n.Load == nil || n.Load.Replicas != 4)) {
				return fmt.Errorf("n%d is %s, and should be %s: %s", n.ID, n.State, state, n.Why)
			}
		}
		return nil
	})
	return l
}

// TestWhoIsWell: a paused process moves nothing, a killed one is suspect within seconds and well again when it is back, whoever leads
// `sys`; everybody is told why.
func TestWhoIsWell(t *testing.T) {
	c := startCluster(t, 3, "--attribute", "ssd", "--attribute", "big")
	for _, p := range c.procs {
		for _, other := range c.procs {
			c.waitState(p, other.addr, "active", "its heartbeats come")
		}
	}
	before := c.waitState(c.procs[0], c.procs[2].addr, "active", "its heartbeats come")
	for _, n := range before.Nodes {
		if n.Load == nil || n.Load.DiskBytes == 0 || fmt.Sprint(n.Attributes) != "[ssd big]" {
			t.Errorf("n%d: %+v", n.ID, n)
		}
	}

	paused := c.procs[2]
	pause(paused, time.Second)
	// What the pause might have led to would be written within the window; three more heartbeats show that it did not.
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for range 3 {
		<-tick.C
	}
	after := c.waitState(c.procs[0], paused.addr, "active", "its heartbeats come")
	for i, n := range after.Nodes {
		if n.State != "active" || n.Generation != before.Nodes[i].Generation {
			t.Errorf("a pause of a second changed the record of n%d: generation %d, then %d: %s", n.ID, before.Nodes[i].Generation, n.Generation, n.Why)
		}
	}

	// The leader of sys is the one that is told first: it dies, and the next one begins with an empty table.
	var lead *proc
	for _, n := range after.Nodes {
		for _, p := range c.procs {
			if n.ID == after.ToldBy && n.Address == p.addr {
				lead = p
			}
		}
	}
	lead.kill()
	witness := c.alive()[0]
	l := c.waitState(witness, lead.addr, "suspect", "it is held to be failed after 5m0s")
	for _, n := range l.Nodes {
		if n.Address != lead.addr && n.State != "active" {
			t.Errorf("n%d is %s beside it: %s", n.ID, n.State, n.Why)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.client(witness.addr).Put(ctx, "k", "v"); err != nil {
		t.Errorf("with one of three suspect: %v", err)
	}
	lead.start()
	l = c.waitState(witness, lead.addr, "active", "its heartbeats come")
	for _, n := range l.Nodes {
		if n.Address == lead.addr && (n.Incarnation != 2 || n.Epoch != 0) {
			t.Errorf("back: %+v", n)
		}
	}
	out, err := run(10*time.Second, "node", "matrix", "--host", witness.addr)
	if err != nil || !strings.Contains(out, "SUPPORTER") || len(strings.Split(strings.TrimSpace(out), "\n")) != 4 {
		t.Errorf("matrix: %q, %v", out, err)
	}
}

// pause stops a process for a while, as a machine that is suspended does.
func pause(p *proc, d time.Duration) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
}

// TestGivenUp: a process that is away for longer than the policy lets it is held to be failed. Back, it serves nothing until it has
// announced itself, and then under the epoch that was raised. Removed, it ends and says why, as often as it is started.
func TestGivenUp(t *testing.T) {
	c := startCluster(t, 3)
	dead, witness := c.procs[2], c.procs[0]
	c.waitState(witness, dead.addr, "active", "its heartbeats come")
	if _, err := run(20*time.Second, "policy", "set", "failed_after=10s", "--host", witness.addr); err != nil {
		t.Fatal(err)
	}
	dead.kill()
	l := c.waitState(witness, dead.addr, "failed", "it was suspect for 10")
	for _, n := range l.Nodes {
		if n.Address == dead.addr && n.Epoch != 1 {
			t.Errorf("given up under epoch %d, want 1", n.Epoch)
		}
	}

	dead.start()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cl := c.client(dead.addr)
	c.eventually(60*time.Second, func() error {
		_, err := cl.Get(ctx, "k", clientv3.WithSerializable())
		return err
	})
	// It serves: so the cluster has taken note of it, under the new epoch.
	list, err := run(10*time.Second, "node", "ls", "-o", "json", "--host", dead.addr)
	if err != nil {
		t.Fatal(err)
	}
	l = &nodesList{}
	if err := json.Unmarshal([]byte(list), l); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes {
		if n.Address == dead.addr && (n.State != "active" || n.Epoch != 1 || n.Incarnation != 2) {
			t.Errorf("it serves, and is %+v", n)
		}
	}

	dead.kill()
	l = c.waitState(witness, dead.addr, "failed", "it was suspect for 10")
	name := ""
	for _, n := range l.Nodes {
		if n.Address == dead.addr {
			name = fmt.Sprintf("n%d", n.ID)
		}
	}
	if _, err := run(20*time.Second, "node", "rm", name, "--yes-it-is-dead", name, "--host", witness.addr); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		dead.start()
		if code := dead.wait(60 * time.Second); code == 0 || !strings.Contains(dead.log.String(), name+" was removed from the cluster (") {
			t.Errorf("removed, and it ended with %d", code)
		}
	}
}
