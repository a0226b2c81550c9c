package jepsen

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is one node: a store, an address, and a process that can be killed, paused, and started again.
type Node struct {
	Name       string // node1
	Index      int    // its place in Cluster.Nodes
	IP         string
	ClientAddr string // HOST:PORT, where clients and other nodes reach it
	Dir        string // of the store
	Log        string // file that all its processes wrote to, one behind the other

	binary string
	args   []string
	enter  []string // what stands before the binary, so that it runs where the node lives; empty: here

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	expected bool          // its end was asked for
	excused  bool          // a fault of its disk may end it
	paused   bool
	retired  bool    // its store has left the cluster for good: no process is started on it
	findings []error // ends that nobody asked for
}

// endTime bounds the wait for a process that was killed: it has nothing left to say in that.
const endTime = 30 * time.Second

// Running says whether the node has a process; one that is paused counts.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running()
}

func (n *Node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// start starts a process on the store.
func (n *Node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running() || n.retired {
		return nil
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	line := append(append([]string{}, n.enter...), append([]string{n.binary}, n.args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// If this process ends in whatever way, no node stays.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	done := make(chan struct{})
	n.cmd, n.done, n.expected, n.excused, n.paused = cmd, done, false, false, false
	go n.wait(cmd, done)
	return nil
}

// wait waits for a process's end, and notes one that nobody asked for.
func (n *Node) wait(cmd *exec.Cmd, done chan struct{}) {
	err := cmd.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.expected && !n.excused {
		n.findings = append(n.findings, fmt.Errorf("%s ended by itself (%v); the end of its log:\n%s", n.Name, err, lastLines(n.Log, 10)))
	}
	close(done)
}

// excuse says whether the process may end by itself from now on, until it is started again.
func (n *Node) excuse(yes bool) {
	n.mu.Lock()
	n.excused = n.excused || yes
	n.mu.Unlock()
}

// end signals the process to end and waits until it has.
func (n *Node) end(s syscall.Signal) error {
	n.mu.Lock()
	if !n.running() {
		n.mu.Unlock()
		return nil
	}
	n.expected = true
	cmd, done := n.cmd, n.done
	err := cmd.Process.Signal(s)
	n.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	late := time.NewTimer(endTime)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return fmt.Errorf("%s did not end within %s of %s", n.Name, endTime, s)
	}
}

// pause stops the process where it is, or lets it go on. A node without a process stays as it is: one may have been killed
// since.
func (n *Node) pause(stop bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.running() || n.paused == stop {
		return nil
	}
	s := syscall.SIGCONT
	if stop {
		s = syscall.SIGSTOP
	}
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	n.paused = stop
	return nil
}

// found is what went wrong with the node's processes: ends that nobody asked for, and words in its log that no fault
// excuses.
func (n *Node) found() []error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append(append([]error{}, n.findings...), alarms(n.Name, n.Log)...)
}

// alarming begins or stands in lines that only a broken program writes. The runtime prints the first three.
func alarming(line string) bool {
	for _, word := range []string{"panic: ", "fatal error: ", "unexpected fault address", "DATA RACE", "invariant violated"} {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}

const maxAlarms = 5 // of one log: what follows the first is its consequence

// alarms reads a log for them.
func alarms(name, path string) (found []error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was never started
	}
	if err != nil {
		return []error{err}
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && len(found) < maxAlarms {
		if alarming(lines.Text()) {
			found = append(found, fmt.Errorf("the log of %s: %s", name, lines.Text()))
		}
	}
	if err := lines.Err(); err != nil {
		found = append(found, fmt.Errorf("the log of %s: %w", name, err))
	}
	return found
}

// lastLines are the last lines of a file; what cannot be read is said in their place.
func lastLines(path string, n int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
