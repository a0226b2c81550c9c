package watch

import (
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/watch"
)

// mailbox is what the loop is to be told. Whoever applies never waits for it: what one range has shown in several pieces is put
// together, so that many writes are one step; and if the loop is so far behind that too much would be kept, the events are left out,
// which shows as a gap, and the hub reads them where they are stored.
type mailbox struct {
	mu     sync.Mutex
	room   sync.Cond
	mail   mail
	spare  mail
	bytes  int  // of events in it
	asked  int  // what clients asked for
	held   bool // what is applied and sent does not wake the loop: it is at work, or takes it after its pause
	due    bool // such came meanwhile
	closed bool

	signal chan struct{} // capacity 1: something is there
}

// mail is what came between two steps.
type mail struct {
	items []item
	last  map[base.RangeID]int // where a range's last Applied is, if it has not gone since
	sent  map[watch.StreamID]int
}

// item is one thing that happened: one of the two is there.
type item struct {
	applied *watch.Applied
	do      func(*watch.Hub)
}

func newMail() mail {
	return mail{last: make(map[base.RangeID]int), sent: make(map[watch.StreamID]int)}
}

func newMailbox() *mailbox {
	m := &mailbox{mail: newMail(), spare: newMail(), signal: make(chan struct{}, 1)}
	m.room.L = &m.mu
	return m
}

// applied adds what a range's replica has shown. It is the mailbox's from now on, with the room that its events are in.
func (m *mailbox) applied(a *watch.Applied) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	size := 0
	for _, e := range a.Events {
		size += base.WatchEventBytes + len(e.Key) + len(e.Wire) + len(e.WithPrev)
	}
	m.stir()
	i, before := m.mail.last[a.Range]
	if m.bytes+size > base.WatchMailboxBytes && size > 0 {
		a.From, a.Events, size = a.Next, nil, 0
		if before {
			m.mail.items[i].applied = a // what it had is before the gap, and as well read from where it is stored
			return
		}
	}
	m.bytes += size
	if before && follows(m.mail.items[i].applied, a) {
		old := m.mail.items[i].applied
		old.Events, old.Next, old.Compacted = append(old.Events, a.Events...), a.Next, a.Compacted
		return
	}
	m.mail.last[a.Range] = len(m.mail.items)
	m.mail.items = append(m.mail.items, item{applied: a})
}

// follows says whether two of one range can be told as one.
func follows(old, a *watch.Applied) bool {
	return a.From == old.Next && a.Prev == old.Prev && desc.Generation(a.Descriptor) == desc.Generation(old.Descriptor) &&
		desc.SameSpan(a.Descriptor, old.Descriptor)
}

// gone adds that a range's replica has ended.
func (m *mailbox) gone(id base.RangeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	delete(m.mail.last, id)
	m.mail.items = append(m.mail.items, item{do: func(h *watch.Hub) { h.Gone(id) }})
	m.wake()
}

// waitForRoom waits while clients ask for more than the loop gets done; false: it has ended.
func (m *mailbox) waitForRoom() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.asked >= base.WatchMailboxAsks && !m.closed {
		m.room.Wait()
	}
	return !m.closed
}

// do has the loop run f; false: it has ended.
func (m *mailbox) do(f func(*watch.Hub)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.asked++
	m.mail.items = append(m.mail.items, item{do: f})
	m.wake()
	return true
}

// sent adds to what was sent of a stream. A little of it is told with whatever comes next: it is far less than what makes a stream full.
func (m *mailbox) sent(id watch.StreamID, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.mail.sent[id] += bytes
	if m.mail.sent[id] >= base.WatchSentBytes {
		m.stir()
	}
}

// stir wakes the loop for what may wait for the end of its pause.
func (m *mailbox) stir() {
	if m.due = true; !m.held {
		m.wake()
	}
}

func (m *mailbox) wake() {
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// take returns what has come. It is the loop's until it takes again. What is applied and sent from now on wakes nobody until open.
func (m *mailbox) take() mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := m.mail
	select {
	case <-m.signal: // for what is taken now
	default:
	}
	m.spare.items = base.Emptied(m.spare.items)
	clear(m.spare.last)
	clear(m.spare.sent)
	m.mail, m.spare, m.bytes, m.asked, m.held, m.due = m.spare, took, 0, 0, true, false
	m.room.Broadcast()
	return took
}

// open has the loop woken by whatever comes, and has come.
func (m *mailbox) open() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held = false; m.due {
		m.wake()
	}
}

// close lets nothing more in.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.room.Broadcast()
}
