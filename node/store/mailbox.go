package store

import (
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// mailbox collects the events of one loop until its worker takes them, all at once: the more there are, the
// larger is the batch that one pass makes of them.
type mailbox struct {
	mu     sync.Mutex
	ev     *raftgroup.Events
	spare  *raftgroup.Events
	asks   []func(*raftgroup.Loop) // run by the worker between two steps
	bytes  int                     // of the raft messages and proposals that wait
	closed bool

	signal chan struct{} // capacity 1: something is there
}

func newMailbox() *mailbox {
	return &mailbox{ev: &raftgroup.Events{}, spare: &raftgroup.Events{}, signal: make(chan struct{}, 1)}
}

// put runs add on the events under the lock and wakes the worker. It reports false when the loop has stopped.
func (m *mailbox) put(add func(*raftgroup.Events)) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	add(m.ev)
	m.mu.Unlock()
	m.wake()
	return true
}

// propose adds a proposal, unless too much waits already.
func (m *mailbox) propose(p raftgroup.Proposal) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return base.ErrStopped
	}
	if m.bytes > base.MailboxBytes {
		m.mu.Unlock()
		return &base.Throttled{What: "proposals", RetryAfter: base.ThrottleRetry}
	}
	m.bytes += len(p.Data)
	m.ev.Proposals = append(m.ev.Proposals, p)
	m.mu.Unlock()
	m.wake()
	return nil
}

// receive adds raft messages, size bytes of them, or drops them if too much waits: Raft sends again.
func (m *mailbox) receive(ms []raftgroup.Message, size int) (taken bool) {
	m.mu.Lock()
	if m.closed || m.bytes > base.MailboxBytes {
		m.mu.Unlock()
		return false
	}
	m.bytes += size
	m.ev.Messages = append(m.ev.Messages, ms...)
	m.mu.Unlock()
	m.wake()
	return true
}

// ask has the worker run f between two steps. f must be short.
func (m *mailbox) ask(f func(*raftgroup.Loop)) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.asks = append(m.asks, f)
	m.mu.Unlock()
	m.wake()
	return true
}

func (m *mailbox) wake() {
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// take returns what has come since the last take. The events are the worker's until it takes again.
func (m *mailbox) take() (*raftgroup.Events, []func(*raftgroup.Loop)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ev, asks := m.ev, m.asks
	reset(m.spare)
	m.ev, m.spare, m.asks, m.bytes = m.spare, ev, nil, 0
	return ev, asks
}

// close lets nothing more in, and wakes the worker so that it ends.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wake()
}

func (m *mailbox) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func reset(ev *raftgroup.Events) {
	ev.Messages, ev.Proposals, ev.Reads = base.Emptied(ev.Messages), base.Emptied(ev.Proposals), base.Emptied(ev.Reads)
	ev.Durable, ev.Applied, ev.Admin = base.Emptied(ev.Durable), base.Emptied(ev.Applied), base.Emptied(ev.Admin)
	ev.Promised, ev.Supported, ev.Lost = base.Emptied(ev.Promised), base.Emptied(ev.Supported), base.Emptied(ev.Lost)
	ev.Unreachable, ev.Latches = base.Emptied(ev.Unreachable), base.Emptied(ev.Latches)
}
