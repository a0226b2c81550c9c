package cairntest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/cairndb/cairn/node"
)

// member is one node of a cluster: what it is made of, and the node itself while it runs.
type member struct {
	i    int
	addr string
	cfg  node.Config
	log  *tail

	listener net.Listener // not yet taken over by a node
	node     *node.Node   // nil: it does not run
}

// start runs the node; it is not ready yet.
func (m *member) start() error {
	if m.listener == nil {
		l, err := net.Listen("tcp", m.addr)
		if err != nil {
			return fmt.Errorf("its port was taken while it did not run: %w", err)
		}
		m.listener = l
	}
	cfg := m.cfg
	cfg.Listener = m.listener
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	m.listener = nil // the node's, which closes it whatever comes
	if err := n.Start(context.Background()); err != nil {
		return err
	}
	m.node = n
	return nil
}

// ready waits until the node is part of the cluster and serves.
func (m *member) ready(ctx context.Context) error {
	select {
	case <-m.node.Ready():
		return nil
	case err := <-m.node.Fatal():
		return fmt.Errorf("cairntest: node %d: %w", m.i, err)
	case <-ctx.Done():
		return fmt.Errorf("cairntest: node %d does not serve: %w", m.i, ctx.Err())
	}
}

// stop ends the node if it runs; gently, it hands over and lets requests end. It says what the node has complained of in its life.
func (m *member) stop(gently bool) error {
	if m.node == nil {
		if m.listener != nil { // nothing was made of it
			return m.listener.Close()
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !gently {
		cancel() // there is no time to hand over
	}
	err := m.node.Stop(ctx)
	select {
	case fatal := <-m.node.Fatal():
		err = errors.Join(fatal, err)
	default:
	}
	m.node = nil
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.limit {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-t.limit):])
}
