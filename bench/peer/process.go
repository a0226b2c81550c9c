package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/cairndb/cairn/bench/proc"
)

// process is one server's process. It does not outlive this one.
type process struct {
	name   string
	log    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// start starts a command with its output in a log file.
func start(name, log, binary string, args []string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	p := &process{name: name, log: log, cmd: exec.Command(binary, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = Leashed()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

// Leashed makes the kernel kill a child when the thread that started it ends, and thus with this process at the
// latest; Go ends a thread early only if a goroutine was locked to it, which nothing here does. Keyboard interrupts
// are kept from the child: what its end means is decided here.
func Leashed() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// check fails if the process has ended.
func (p *process) check() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s has ended (%s); its output is in %s", p.name, p.cmd.ProcessState, p.log)
	default:
		return nil
	}
}

func (p *process) usage() (proc.Usage, error) {
	if err := p.check(); err != nil {
		return proc.Usage{}, err
	}
	return proc.Of(p.cmd.Process.Pid)
}

// kill ends the process and waits until it is gone.
func (p *process) kill(ctx context.Context) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s was killed and has not ended: %w", p.name, ctx.Err())
	}
}
