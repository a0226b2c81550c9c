package jepsen

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// Every node of a ring reaches a majority with itself, no node reaches all, and both directions of a pair are alike.
func TestRing(t *testing.T) {
	for n := 3; n <= 9; n++ {
		lost := ringEdges(drawNodes(&Cluster{Nodes: make([]*Node, n)}, newRand(), n))
		for i := range n {
			reached := 1
			for j := range n {
				if j != i && !slices.Contains(lost, [2]int{i, j}) {
					reached++
				}
				if slices.Contains(lost, [2]int{i, j}) != slices.Contains(lost, [2]int{j, i}) {
					t.Errorf("%d nodes: %d and %d hear each other one way", n, i, j)
				}
			}
			if reached <= n/2 || n >= 5 && reached == n {
				t.Errorf("%d nodes: node %d reaches %d", n, i, reached)
			}
		}
	}
}

func TestShapes(t *testing.T) {
	c := &Cluster{}
	for i := range 5 {
		c.Nodes = append(c.Nodes, &Node{Name: fmt.Sprintf("node%d", i+1)})
	}
	for name, want := range map[string]struct {
		draw  shape
		edges int
	}{
		"one of five":          {isolated(one), 8},
		"two and three":        {halves, 12},
		"two, one, two":        {bridge, 8},
		"one pair":             {pairOnly, 2},
		"four to one":          {oneWay(one, true), 4},
		"clients and one":      {clientsOff, 2},
		"a majority and few":   {isolated(majority), 12},
		"everybody, from none": {isolated(everybody), 0},
	} {
		lost, what, err := want.draw(t.Context(), c, newRand())
		if err != nil || len(lost) != want.edges || what == "" {
			t.Errorf("%s: %v, %q, %v", name, lost, what, err)
		}
	}
}

func TestOwnName(t *testing.T) {
	for s, want := range map[string]string{
		"cj123b": "cj123 0 true", "cj123n4": "cj123 4 true", "cj9tb": "cj9t 0 true", "cj9tn1": "cj9t 1 true",
		"cj123v4": "cj123 0 false", "cjb": " 0 false", "eth0": " 0 false", "cj12": "cj12 0 false",
	} {
		name, node, ok := ownName(s)
		if got := fmt.Sprint(name, " ", node, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
}

// In real namespaces: a cut loses what goes one way and nothing else, mend undoes it, and nothing stays behind.
func TestNetwork(t *testing.T) {
	if err := tryNamespaces(); err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	n := newNetwork("t")
	t.Cleanup(func() {
		if err := n.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := n.make(2); err != nil {
		t.Fatal(err)
	}
	want := func(from, to int, reached bool) {
		t.Helper()
		if got := pings(t, n, from, to); got != reached {
			t.Errorf("from %d to %d: reached %v, want %v", from, to, got, reached)
		}
	}
	want(0, 1, true)
	want(Clients, 0, true)
	if err := n.cut(0, 1); err != nil {
		t.Fatal(err)
	}
	want(0, 1, false)
	want(1, 0, false) // it is heard, and its answer is lost
	want(Clients, 1, true)
	if err := n.mend(0, 1); err != nil {
		t.Fatal(err)
	}
	want(0, 1, true)
	if err := n.cut(Clients, 0); err != nil {
		t.Fatal(err)
	}
	want(Clients, 0, false)
	want(1, 0, true)
	if err := n.mend(Clients, 0); err != nil {
		t.Fatal(err)
	}
	want(Clients, 0, true)
}

// pings says whether a connection attempt from one end to another is answered, be it with a refusal: nobody listens.
func pings(t *testing.T, n *network, from, to int) bool {
	t.Helper()
	address := net.JoinHostPort(n.address(to), "9")
	if from != Clients {
		// timeout ends with 124 if nothing was answered, and the shell with 1 if it was refused.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "ip", "netns", "exec", n.namespace(from), "timeout", "0.5", "bash", "-c", "echo > /dev/tcp/"+n.address(to)+"/9")
		_ = cmd.Run() // how it ended is the answer
		return cmd.ProcessState.ExitCode() != 124
	}
	d := net.Dialer{Timeout: 500 * time.Millisecond}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err == nil {
		_ = conn.Close()
		return true
	}
	netErr, ok := err.(net.Error)
	return !(ok && netErr.Timeout())
}
