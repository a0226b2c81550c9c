package jepsen

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// work is one workload of a stage. Its clients step it one at a time.
type work struct {
	name, prefix string
	watches      bool // it writes nothing, and nothing is to be read back
	leases       bool // its clients have leases: one that has nothing to do is away for longer
	keyspace     keyspace
	cut          func(key []byte) []byte // nil: its keyspace is one range

	mu sync.Mutex
	w  linearizability.Workload
}

func (w *work) next(client int, r *base.Rand) proto.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Next(client, r)
}

func (w *work) ended(op *linearizability.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.w.Ended(op)
}

// load is the clients of one stage and what they share.
type load struct {
	endpoints func() []string // of the nodes, by index; read again at each new connection
	record    *recorder
	meter     *meter
	ids       *atomic.Int64 // numbers of clients, of the whole run: none is used twice
	works     []*work
	streams   streams // of watches, that several clients share

	mu      sync.Mutex
	since   time.Time        // waiting: only what was begun after it counts
	waiting map[int]struct{} // clients that have not succeeded since
	done    chan struct{}    // closed when there are none; nil if nobody waits
}

// Pauses of a client that got nowhere: long enough not to spin, short against a fault.
const (
	pauseNoConnection = 50 * time.Millisecond
	pauseRefused      = 10 * time.Millisecond
	pauseIdle         = 2 * time.Millisecond
	// pauseAway is a turn of a client with a lease that does nothing: some tens of them are longer than the lease.
	pauseAway = 100 * time.Millisecond
)

// run runs clients until stop ends and waits for the requests that are under way; ctx ends these too.
func (l *load) run(ctx context.Context, stop <-chan struct{}, clients int, r *base.Rand) {
	var wg sync.WaitGroup
	for slot := range clients {
		w := l.works[slot%len(l.works)]
		c := &client{load: l, slot: slot, work: w, caller: l.caller(slot, w.keyspace), rand: base.NewRand(r.Uint64())}
		c.caller.place = slot / len(l.works)
		c.caller.renew()
		wg.Go(func() { c.run(ctx, stop) })
	}
	wg.Wait()
}

// succeeded notes for those who wait for recovery that a client succeeded in what it began at a time.
func (l *load) succeeded(slot int, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil || begun.Before(l.since) {
		return
	}
	if delete(l.waiting, slot); len(l.waiting) == 0 {
		close(l.done)
		l.done = nil
	}
}

// recovered returns a channel that is closed when each client has succeeded in something that it began from now on. One
// waits at a time.
func (l *load) recovered(clients int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.waiting, l.done = time.Now(), make(map[int]struct{}), make(chan struct{})
	for slot := range clients {
		l.waiting[slot] = struct{}{}
	}
	return l.done
}

// left is how many clients a wait for recovery still waits for.
func (l *load) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// client is one client: a goroutine that carries out what its workload wants, one request at a time.
type client struct {
	load   *load
	slot   int // its place among the stage's clients; the number that the history knows changes
	work   *work
	caller *caller
	rand   *base.Rand
}

func (c *client) run(ctx context.Context, stop <-chan struct{}) {
	defer c.caller.close()
	for open(ctx, stop) {
		if err := c.caller.connect(ctx); err != nil {
			c.caller.move()
			pause(ctx, stop, pauseNoConnection)
			continue
		}
		req := c.work.next(c.caller.id, c.rand)
		if req == nil {
			idle := pauseIdle
			if c.work.leases {
				idle = pauseAway
			}
			pause(ctx, stop, idle)
			continue
		}
		begun := time.Now()
		op, err := c.caller.do(ctx, req, false)
		ended := time.Now()
		c.load.meter.note(ended, ended.Sub(begun), op.Outcome)
		c.work.ended(op)
		switch {
		case op.Outcome == linearizability.OK && brokeOff(op.Response):
			c.caller.move()
		case op.Outcome == linearizability.OK:
			c.load.succeeded(c.slot, begun)
		case op.Outcome == linearizability.Unknown:
			c.caller.renew() // whoever does not know what became of its request is gone; the next one is another
			c.caller.move()
		case elsewhere(err):
			c.caller.move()
			pause(ctx, stop, pauseRefused)
		}
	}
}

// caller is a connection to one of the nodes under the name of one client of the history. It is for one goroutine.
type caller struct {
	load     *load
	keyspace keyspace
	id       int // as the history names it
	place    int // among the clients of its workload: what it does may depend on it, and it keeps it under each name
	node     int
	link     *link // nil: none yet
}

// caller makes a caller for a keyspace that begins at a node.
func (l *load) caller(node int, ks keyspace) *caller {
	c := &caller{load: l, keyspace: ks, node: node}
	c.renew()
	return c
}

// connect opens the connection if there is none.
func (c *caller) connect(ctx context.Context) (err error) {
	if c.link != nil {
		return nil
	}
	all := c.load.endpoints()
	c.link, err = dial(ctx, all[c.node%len(all)], c.keyspace)
	return err
}

// do carries out one request over the open connection and records it.
func (c *caller) do(ctx context.Context, req proto.Message, final bool) (*linearizability.Op, error) {
	op := c.load.record.invoke(c.id, c.keyspace.id, req, final)
	resp, err := c.carryOut(ctx, req)
	if said, ok := resp.(*askpb.AskResponse); ok && final && !said.Served {
		resp, err = nil, fmt.Errorf("%w: node %d: %s", errNotServed, said.NodeId, said.Refusal)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.load.record.ended(op, outcomeOf(req, err), resp, text)
	return op, err
}

func (c *caller) carryOut(ctx context.Context, req proto.Message) (proto.Message, error) {
	if f, ok := req.(*followpb.FollowRequest); ok {
		return answer(c.follow(ctx, f))
	}
	return c.link.call(ctx, req)
}

// brokeOff says whether a response is that of a watch whose stream broke.
func brokeOff(resp proto.Message) bool {
	f, ok := resp.(*followpb.FollowResponse)
	return ok && f.Broken
}

// move goes on to the next node. The connection is closed, not kept: one that is half open would be met again.
func (c *caller) move() {
	c.close()
	c.node++
}

// renew goes on as another client of the history. Workloads tell their clients apart by their numbers: the remainder stays what it was.
func (c *caller) renew() { c.id = int(c.load.ids.Add(1))*places + c.place }

// places are more than the clients of any workload.
const places = 1 << 10

func (c *caller) close() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

func open(ctx context.Context, stop <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	default:
		return true
	}
}

// pause waits, or less if all is to end; it says whether to go on.
func pause(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	return false
}
