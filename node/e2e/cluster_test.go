// Package e2e drives the real binary as real processes, through the public etcd client and the command line.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	// What the binary is made of: go test must not show an old result after a change of it.
	_ "github.com/cairndb/cairn/node"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cairn-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "cairn")
	build := exec.Command("go", "build", "-o", binary, "github.com/cairndb/cairn/cmd/cairn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building the binary: %v\n%s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// proc is one node: a process that can be killed and started again on its store.
type proc struct {
	t     *testing.T
	name  string
	addr  string
	store string
	args  []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when the process has ended
}

// logBuffer keeps what a process printed, for the test's failure message and for tests of messages.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newProc(t *testing.T, name, addr string, args ...string) *proc {
	p := &proc{t: t, name: name, addr: addr, store: filepath.Join(t.TempDir(), name), log: &logBuffer{}}
	p.args = append([]string{"start", "--store", p.store, "--listen", addr, "--advertise", addr}, args...)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("--- log of %s (%s), the end of it:\n%s", name, addr, tail(p.log.String(), 6000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (p *proc) start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait() // its state is read from cmd.ProcessState
		close(done)
	}(p.cmd, p.done)
}

// kill ends the process at once and waits for its end.
func (p *proc) kill() { p.signal(syscall.SIGKILL) }

// term asks it to stop, and returns how it ended.
func (p *proc) term() int {
	p.signal(syscall.SIGTERM)
	return p.cmd.ProcessState.ExitCode()
}

func (p *proc) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(s) // it may have ended in between
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		p.t.Errorf("%s did not end within 30 s of %s", p.name, s)
	}
}

// wait returns the exit code of a process that ends by itself.
func (p *proc) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("%s still runs after %s; its log:\n%s", p.name, limit, p.log)
		return -1
	}
}

type cluster struct {
	t     *testing.T
	procs []*proc
}

// startCluster starts n nodes that find each other, with further flags, and waits until every range has its replicas.
func startCluster(t *testing.T, n int, flags ...string) *cluster {
	t.Helper()
	addrs := freeAddrs(t, n)
	c := &cluster{t: t}
	for i, a := range addrs {
		args := []string{"--join", strings.Join(addrs, ","), "--bootstrap-expect", fmt.Sprint(n), "--locality", fmt.Sprintf("zone=z%d", i+1)}
		c.procs = append(c.procs, newProc(t, fmt.Sprintf("node%d", i+1), a, append(args, flags...)...))
	}
	for _, p := range c.procs {
		p.start()
	}
	c.waitReplicated(min(n, 3))
	return c
}

func (c *cluster) endpoints() []string {
	var out []string
	for _, p := range c.procs {
		out = append(out, p.addr)
	}
	return out
}

func (c *cluster) client(endpoints ...string) *clientv3.Client {
	c.t.Helper()
	if len(endpoints) == 0 {
		endpoints = c.endpoints()
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// status is `cairn status --ranges -o json`.
type status struct {
	Nodes  []statusNode `json:"nodes"`
	Ranges []struct {
		ID         uint64  `json:"id"`
		Keyspace   string  `json:"keyspace"`
		Generation uint64  `json:"generation"`
		Rate       float64 `json:"rate"`
		Leader     struct {
			Node    uint64 `json:"node"`
			Address string `json:"address"`
			Term    uint64 `json:"term"`
		} `json:"leader"`
		Replicas []struct {
			Node    uint64 `json:"node"`
			Replica uint64 `json:"replica"`
			Role    string `json:"role"`
			Match   uint64 `json:"match"`
			Applied uint64 `json:"applied"`
		} `json:"replicas"`
	} `json:"ranges"`
}

type statusNode struct {
	ID       uint64 `json:"id"`
	Address  string `json:"address"`
	Locality string `json:"locality"`
	State    string `json:"state"`
	Version  string `json:"version"`
}

func (c *cluster) status(p *proc) (*status, error) {
	out, err := run(10*time.Second, "status", "--ranges", "-o", "json", "--host", p.addr)
	if err != nil {
		return nil, err
	}
	s := &status{}
	return s, json.Unmarshal([]byte(out), s)
}

// waitReplicated waits until every range has a leader and at least that many voters: Cairn's own have five where five nodes are.
func (c *cluster) waitReplicated(voters int) {
	c.t.Helper()
	c.eventually(60*time.Second, func() error {
		s, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		if len(s.Ranges) != 4 {
			return fmt.Errorf("%d ranges, want root, meta, sys and default", len(s.Ranges))
		}
		for _, r := range s.Ranges {
			n := 0
			for _, rep := range r.Replicas {
				if rep.Role == "voter" {
					n++
				}
			}
			if n < voters || r.Leader.Node == 0 {
				return fmt.Errorf("range %d (%s): %d voters, leader %d", r.ID, r.Keyspace, n, r.Leader.Node)
			}
		}
		return nil
	})
}

// leader returns the process that leads the range of the default keyspace.
func (c *cluster) leader() *proc {
	c.t.Helper()
	var found *proc
	c.eventually(30*time.Second, func() error {
		s, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		for _, r := range s.Ranges {
			if r.Keyspace != "default" {
				continue
			}
			for _, p := range c.alive() {
				if p.addr == r.Leader.Address {
					found = p
					return nil
				}
			}
		}
		return errors.New("no leader of default is alive")
	})
	return found
}

func (c *cluster) alive() []*proc {
	var out []*proc
	for _, p := range c.procs {
		select {
		case <-p.done:
		default:
			out = append(out, p)
		}
	}
	return out
}

// eventually asks again until f succeeds; there is no event across processes to wait for.
func (c *cluster) eventually(limit time.Duration, f func() error) {
	c.t.Helper()
	eventually(c.t, limit, f)
}

func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %v", limit, err)
		}
	}
}

// run runs the binary and returns what it printed; the error carries what it said on stderr.
func run(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("cairn %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// freeAddrs returns loopback addresses that were free a moment ago.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}
