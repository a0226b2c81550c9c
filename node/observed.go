package node

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/observe"
	"github.com/cairndb/cairn/node/serve"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/node/web"
	"github.com/cairndb/cairn/raftgroup"
)

// This file is what a node answers over HTTP, and what it tells those who watch over it.

// leaders counts the leaders that the range of etcd's clients had, as far as this node saw.
type leaders struct{ last, seen atomic.Uint64 }

// changed takes note of who leads; 0: nobody is known to.
func (l *leaders) changed(node base.NodeID) {
	if node == 0 {
		return
	}
	if was := l.last.Swap(uint64(node)); was != 0 && was != uint64(node) {
		l.seen.Add(1)
	}
}

// serveHTTP has the server answer HTTP on the listeners of gRPC.
func (n *Node) serveHTTP() error {
	return n.server.AlsoHTTP(func(conn *grpc.ClientConn) (http.Handler, error) {
		h, err := web.New(web.Config{
			Conn: conn, Version: serve.EtcdVersion, Member: func() bool { return n.storeIdentity().ClusterId != 0 }, Live: n.live,
			Keyspace: func(port int) string { return n.names[port] },
			Metrics:  observe.Handler(n.reading, n.cfg.Logger), Logger: n.cfg.Logger,
		})
		n.web = h
		return h, err
	})
}

// live says what is wrong with this process: its store, from which it was started, must be there to be read.
func (n *Node) live() error {
	id, err := store.ReadIdentity(n.eng)
	if err != nil {
		return fmt.Errorf("the store cannot be read: %w", err)
	}
	if id == nil {
		return errors.New("the store has lost its identity")
	}
	return nil
}

// reading is what a scrape tells. It asks no other node, waits for no loop, and looks at no range but one.
func (n *Node) reading() *observe.Reading {
	r := &observe.Reading{Version: n.cfg.Version, EtcdVersion: serve.EtcdVersion}
	for _, c := range n.server.CallCounts() {
		r.Calls = append(r.Calls, observe.Call(c))
	}
	r.Healthy, r.Unhealthy = n.web.HealthChecks()
	m := n.current()
	if m == nil {
		return r
	}
	select {
	case <-n.ready:
		r.Serving = !n.stopping.Load() && m.fence.Check() == nil
	default:
	}
	self := base.NodeID(n.storeIdentity().NodeId)
	st, known := m.store.State(base.RangeDefault)
	out := &observe.Member{
		Node: self, Store: n.StoreMetrics(), Load: m.monitor.Load(), Nodes: n.book.all(),
		Leader: !known || st.LeaderNode != 0, Leads: known && st.Role == raftgroup.Leader, LeaderChanges: n.leaders.seen.Load(),
		Syncs: m.store.Syncs().Totals(), Puts: m.dispatch.Puts().Totals(),
	}
	leases := m.lessor.Counts()
	out.ClientLeases, out.LeasesExpired, out.LeasesKept = leases.Leases, leases.Expired, leases.Kept
	out.Answered, out.Missed = m.monitor.Beats()
	health, by, age := m.monitor.Health()
	out.Told, out.ToldAge = by != 0, age
	for _, h := range health {
		if h.Slow != "" {
			out.Slow++
		}
	}
	for _, p := range m.transport.Peers() {
		out.Peers = append(out.Peers, observe.Peer{Node: p.Node, Up: p.Up, Queued: p.Queued, Sent: p.Sent, SentBytes: p.SentBytes, Dropped: p.Dropped})
	}
	d := m.placement.Counts()
	out.Decided, out.Done, out.GivenUp, out.Held, out.UnderWay, out.Withheld = d.Decided, d.Done, d.GivenUp, d.Held, d.UnderWay, d.Withheld
	op := m.operate.Counts()
	out.OperationsRunning, out.OperationsPaused, out.OperationsDone, out.OperationsFailed = op.Running, op.Paused, op.Done, op.Failed
	ws := m.watches.Counts()
	out.WatchStreams, out.Watches, out.WatchesBehind, out.WatchEvents, out.WatchResponses = ws.Streams, ws.Watches, ws.Behind, ws.Events, ws.Responses
	out.WatchPulls, out.WatchCloses, out.WatchFailed = ws.Pulls, ws.Closes, ws.Failed
	r.Member = out
	return r
}
