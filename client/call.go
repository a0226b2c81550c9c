package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// call is one request, sent as often as its effect allows.
type call struct {
	keyspace string
	key      []byte // the first: by it the range is found
	effect   effect
	// invoke makes the RPC. It is called once for each try, and leaves nothing behind if it fails.
	invoke func(context.Context, *grpc.ClientConn, ...grpc.CallOption) error
}

// do tries a request at the node that most likely leads the key's range, then at others, as long as it certainly has had no
// effect and ctx lasts (route.Retry decides, on what outcome says).
func (c *Client) do(ctx context.Context, q *call) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.RequestTimeout)
		defer cancel()
	}
	return c.retry(ctx, func(t *tries) error { return c.attempt(ctx, q, t) })
}

// tries is what a request has gone through.
type tries struct {
	n    int
	last string // the address that was asked last
}

// retry repeats try until it succeeds, or fails for good, or ctx ends.
func (c *Client) retry(ctx context.Context, try func(*tries) error) error {
	var (
		retry route.Retry
		next  route.Try
		t     tries
	)
	for {
		err := try(&t)
		if err == nil {
			return nil
		}
		if retry, next = retry.After(step(err)); next.GiveUp {
			return c.failed(err)
		}
		pause(ctx, next.Wait)
		if ctx.Err() != nil {
			return late(ctx, err)
		}
		t.n++
		c.stats.retried.Add(1)
	}
}

func (c *Client) failed(err error) error {
	var ambiguous *Ambiguous
	if errors.As(err, &ambiguous) {
		c.stats.ambiguous.Add(1)
	}
	return err
}

// late is the error of a request whose time was over before it could be carried out.
func late(ctx context.Context, err error) error {
	var unavailable *Unavailable
	switch {
	case errors.Is(err, ctx.Err()):
		return err
	case errors.As(err, &unavailable):
		return &Unavailable{Cause: fmt.Errorf("%w (%w)", ctx.Err(), unavailable.Cause)}
	}
	return fmt.Errorf("%w (%w)", ctx.Err(), err)
}

// attempt sends a request once.
func (c *Client) attempt(ctx context.Context, q *call, t *tries) error {
	p := c.routes.find(q.keyspace, q.key)
	n, err := c.choose(ctx, p, t.last)
	if err != nil {
		return err
	}
	defer c.conns.give(n)
	t.last = n.addr
	if q.effect == reads {
		// A node that is stuck holds a read up no longer than this; one that is slow is given more each time.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, base.ClientReadTry<<min(t.n, base.ClientReadDoublings))
		defer cancel()
	}
	var (
		trailer metadata.MD
		from    peer.Peer // set if the request got a stream on a connection: from then on it may have been carried out
	)
	err = q.invoke(metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, q.keyspace, base.RouteHeader, p.hint()), n.cc,
		grpc.Trailer(&trailer), grpc.Peer(&from))
	told := c.learn(q.keyspace, p, trailer)
	if from.Addr != nil {
		c.stats.sent.Add(1)
	}
	if err == nil {
		if n.addr == p.Addr && (told == nil || told.Leads) {
			c.stats.direct.Add(1)
		}
		return nil
	}
	err = outcome(err, from.Addr != nil, q.effect)
	c.heal(q.keyspace, p, n, err)
	return err
}

// learn takes what the node told beside its answer.
func (c *Client) learn(keyspace string, asked place, trailer metadata.MD) *clusterpb.Route {
	raw := trailer.Get(base.RouteTrailer)
	if len(raw) == 0 {
		return nil
	}
	told := &clusterpb.Route{}
	if proto.Unmarshal([]byte(raw[len(raw)-1]), told) != nil {
		return nil // of a version that speaks otherwise: the answer counts, the advice does not
	}
	c.routes.learn(keyspace, asked, told)
	return told
}

// heal forgets what a failure makes doubtful.
func (c *Client) heal(keyspace string, p place, n *conn, err error) {
	var (
		unavailable *Unavailable
		ambiguous   *Ambiguous
		several     *SeveralRanges
		none        *NoKeyspace
	)
	switch {
	case errors.As(err, &unavailable), errors.As(err, &ambiguous):
		if n.addr == p.Addr {
			c.routes.unled(p)
		}
		c.routes.doubt(p.Range)
	case errors.As(err, &several):
		c.routes.put(several.Descriptors)
	case errors.As(err, &none):
		c.routes.unnamed(keyspace)
	}
}

// choose takes a connection over which a request can leave: to the leader, or to a replica of the range, or to any node.
func (c *Client) choose(ctx context.Context, p place, last string) (*conn, error) {
	if p.Addr != "" && p.Addr != last {
		n, err := c.conns.take(p.Addr)
		if err != nil {
			return nil, err
		}
		if n.up() || !n.down.Load() && c.reach(ctx, n) {
			return n, nil
		}
		c.conns.give(n)
		c.routes.unled(p)
	}
	addrs := c.candidates(p, last)
	for _, patient := range []bool{false, true} {
		for _, a := range addrs {
			n, err := c.conns.take(a)
			if err != nil {
				return nil, err
			}
			if n.up() || patient && c.reach(ctx, n) {
				return n, nil
			}
			c.conns.give(n)
			if ctx.Err() != nil {
				return nil, &Unavailable{Cause: ctx.Err()}
			}
		}
	}
	return nil, &Unavailable{Cause: fmt.Errorf("none of %d nodes can be reached", len(addrs))}
}

// reach waits for a connection that is being made.
func (c *Client) reach(ctx context.Context, n *conn) bool {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	return n.wait(ctx)
}

// candidates are the addresses to try when the leader is not known or not there: the range's replicas, from the one behind that
// which failed a moment ago; the endpoints in turn; some other nodes; last of all the one that failed.
func (c *Client) candidates(p place, last string) (out []string) {
	seen := map[string]bool{last: true}
	add := func(addrs ...string) {
		for _, a := range addrs {
			if a != "" && !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	if p.Range != nil {
		addrs := c.routes.replicas(p.Range)
		behind := slices.Index(addrs, last) + 1
		add(addrs[behind:]...)
		add(addrs[:behind]...)
	}
	e := c.cfg.Endpoints
	first := int(c.turn.Add(1) % uint64(len(e)))
	add(e[first:]...)
	add(e[:first]...)
	add(c.routes.some(base.ClientFallbacks)...)
	if last != "" {
		out = append(out, last)
	}
	return out
}
