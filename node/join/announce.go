package join

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// LocalAnnounce is this node's own Registrar: the way when no other node can be reached.
type LocalAnnounce func(context.Context, *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error)

// AnnounceSelf tells the cluster that this node has started: its address, incarnation and version. It goes through
// what --join leads to and the addresses of the book, then to itself, again and again until a member has recorded it. book is
// what is known of the others by then.
// A *Refused error is final. Call it after Run returned; it may take as long as the cluster has no majority.
func (e *Entry) AnnounceSelf(ctx context.Context, book func() []*metapb.NodeRecord, local LocalAnnounce) (*clusterpb.AnnounceResponse, error) {
	if !e.isMember() {
		return nil, ErrNotInitialised
	}
	id := e.outcome.Identity
	found, err := e.seek(ctx)
	if err != nil {
		return nil, err
	}
	node := e.self()
	node.NodeId = id.NodeId
	req := &clusterpb.AnnounceRequest{ClusterId: id.ClusterId, Node: node}
	pause := newBackoff(e.cfg.RetryMin, e.cfg.RetryMax)
	said := ""
	for {
		resp, err := e.announceRound(ctx, e.announceTo(found, book()), req, local)
		switch {
		case err == nil:
			e.cfg.Logger.Info("announced to the cluster", "node", id.NodeId, "nodes", len(resp.Nodes))
			return resp, nil
		case isFinal(err):
			return nil, err
		case err.Error() != said:
			e.cfg.Logger.Info("not announced to the cluster yet", "reason", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause.next()):
		}
		found = e.Seek(ctx)
	}
}

// Seek asks at all that --join leads to now for nodes of this node's cluster, and returns where they are. Config.Found is told.
// It is for a node that is a member and may work already: what is wrong with the addresses is logged.
func (e *Entry) Seek(ctx context.Context) (found []string) {
	found, err := e.seek(ctx)
	if err != nil && ctx.Err() == nil {
		e.cfg.Logger.Warn("the addresses of --join", "error", err)
	}
	return found
}

// seek refuses if --join names nodes of another cluster than the store's: either the store or the addresses are not the ones
// that were meant. Where a name led is no such word: DNS may be late.
func (e *Entry) seek(ctx context.Context) (found []string, err error) {
	if !e.isMember() {
		return nil, ErrNotInitialised
	}
	id := e.outcome.Identity
	seen, err := e.look(ctx, id.ClusterId)
	if err != nil {
		return nil, err
	}
	for _, m := range seen.members {
		if m.id.ClusterId == id.ClusterId {
			found = append(found, m.address)
			e.cfg.Found(m.id)
			continue
		}
		refusal := refusef("this store is %s of cluster %x, and %s of --join is part of cluster %x: "+
			"start the node with the addresses of its own cluster, or with an empty store directory",
			base.NodeID(id.NodeId), id.ClusterId, m.address, m.id.ClusterId)
		if !m.looked {
			return nil, refusal
		}
		e.cfg.Logger.Warn("a name of --join leads to another cluster", "reason", refusal)
	}
	return found, nil
}

// announceTo is where others may be: where they were found a moment ago, and then the addresses that they had. Which ones come first
// is drawn anew each time.
func (e *Entry) announceTo(found []string, book []*metapb.NodeRecord) []string {
	var had []string
	for _, n := range book {
		if alive(n) && !bytes.Equal(n.StoreUuid, e.uuid) && !slices.Contains(found, n.Address) {
			had = append(had, n.Address)
		}
	}
	found = slices.Clone(found)
	for _, list := range [][]string{found, had} {
		mrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return slices.DeleteFunc(append(found, had...), func(a string) bool { return a == e.cfg.Self.Address })
}

// announceRound asks until one answers. A refusal is this cluster's, and so is final.
func (e *Entry) announceRound(ctx context.Context, addresses []string, req *clusterpb.AnnounceRequest, local LocalAnnounce) (*clusterpb.AnnounceResponse, error) {
	var errs []error
	try := func(where string, call LocalAnnounce) (*clusterpb.AnnounceResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
		defer cancel()
		resp, err := call(ctx, req)
		if err == nil || isFinal(err) {
			return resp, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", where, err))
		return nil, nil
	}
	for _, a := range addresses[:min(len(addresses), base.AnnounceTries)] {
		if resp, err := try(a, e.announceAt(a)); resp != nil || err != nil {
			return resp, err
		}
	}
	if resp, err := try("this node", local); resp != nil || err != nil {
		return resp, err
	}
	return nil, errors.Join(errs...)
}

// announceAt announces to the node at the address if it is of this cluster. If it is not, that is no refusal: an
// old address may belong to somebody else by now.
func (e *Entry) announceAt(address string) LocalAnnounce {
	return func(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
		conn, err := e.cfg.Dial(address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		probeCtx, cancel := context.WithTimeout(ctx, e.cfg.ProbeTimeout)
		defer cancel()
		id, err := identify(probeCtx, conn)
		if err != nil {
			return nil, errors.New(err.Error())
		}
		if id.ClusterId != req.ClusterId {
			return nil, fmt.Errorf("it is not part of cluster %x", req.ClusterId)
		}
		e.cfg.Found(id)
		resp, err := clusterpb.NewClusterClient(conn).Announce(ctx, req)
		if err != nil {
			return nil, fromWire(err)
		}
		return resp, nil
	}
}
