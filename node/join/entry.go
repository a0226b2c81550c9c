package join

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Entry is a node's own way into a cluster. Run waits for its end; Init and Consent may be called from any
// goroutine meanwhile, and afterwards too (they refuse then).
type Entry struct {
	cfg     Config
	sources []source // --join
	uuid    []byte   // the store's; it never changes

	// turn is held (full) by whoever may make this node a member: a round of Run, or Init. It is held over calls
	// to other nodes. Consent never takes it, or two nodes could wait for each other.
	turn chan struct{}

	// mu guards the store's consent and identity, each read together with the write that rests on it. It is
	// never held over a call to another node.
	mu sync.Mutex
	// changes counts the consents written since the start: a candidate whose count moved while it collected
	// the others' consents has lost its own meanwhile.
	changes uint64
	outcome *Outcome
	entered chan struct{} // closed when outcome is set
}

// Outcome is what a node knows when it has become, or finds that it already is, part of a cluster.
type Outcome struct {
	Identity *metapb.StoreIdentity
	// Founded: this node has just made the cluster, and is its only member.
	Founded bool
	// Nodes and Root are what a member told when it let this node in; nil otherwise.
	Nodes []*metapb.NodeRecord
	Root  *metapb.RangeDescriptor
}

// New returns the entry of a node. Nothing happens until Run, Init or Consent.
func New(cfg Config) (*Entry, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	id := cfg.Store.Identity()
	e := &Entry{cfg: cfg, uuid: id.StoreUuid, turn: make(chan struct{}, 1), entered: make(chan struct{})}
	for _, text := range cfg.Addresses {
		s, err := parseSource(text)
		if err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
		e.sources = append(e.sources, s)
	}
	if id.ClusterId != 0 {
		e.outcome = &Outcome{Identity: id}
		close(e.entered)
	}
	return e, nil
}

// Run returns when the node is part of a cluster: at once if its store already is, otherwise when this node or
// another founded one. A *Refused error is final: somebody has to change something.
func (e *Entry) Run(ctx context.Context) (*Outcome, error) {
	idle := len(e.cfg.Addresses) == 0 && e.cfg.Expect == 0
	pause := newBackoff(e.cfg.RetryMin, e.cfg.RetryMax)
	said := ""
	for {
		var again <-chan time.Time
		if !idle {
			reason, err := e.round(ctx)
			if err != nil {
				return nil, err
			}
			if reason != "" && reason != said {
				e.cfg.Logger.Info("not part of a cluster yet", "reason", reason)
				said = reason
			}
			again = time.After(pause.next())
		}
		select {
		case <-e.entered:
			return e.outcome, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again:
		}
	}
}

// round goes through the addresses once. It returns why the node is not part of a cluster yet, or an error that
// no further round will mend.
func (e *Entry) round(ctx context.Context) (waiting string, err error) {
	if err := e.takeTurn(ctx); err != nil {
		return "", err
	}
	defer e.yieldTurn()
	if e.isMember() {
		return "", nil
	}
	seen, err := e.look(ctx, 0)
	if err != nil {
		return "", err
	}
	switch {
	case seen.unclear != "":
		return seen.unclear, nil // names may lead elsewhere in a moment
	case len(seen.members) > 0:
		return e.joinVia(ctx, seen.members)
	case e.cfg.Expect != 1 && len(e.sources) > 0 && seen.self == len(e.sources) && !e.looksUp():
		return "", refusef("every address of --join is this node itself: give the addresses of other nodes, "+
			"or leave --join out and run cairn init --host %s to make a new cluster", e.cfg.Self.Address)
	case e.cfg.Expect > 0:
		return e.foundExpected(ctx, seen)
	}
	return seen.describe("no node of --join is part of a cluster yet (run cairn init on one of them)"), nil
}

// joinVia asks the members in turn until one lets this node in.
func (e *Entry) joinVia(ctx context.Context, members []*peer) (waiting string, err error) {
	mrand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, m := range members {
		resp, err := e.callJoin(ctx, m)
		if err == nil {
			return "", e.adopt(resp, m)
		}
		if isFinal(err) {
			return "", err
		}
		waiting = fmt.Sprintf("%s (%s) did not let this node in: %v", m.address, base.NodeID(m.id.NodeId), err)
	}
	return waiting, nil
}

func (e *Entry) callJoin(ctx context.Context, m *peer) (*clusterpb.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	conn, err := e.cfg.Dial(m.address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := clusterpb.NewClusterClient(conn).Join(ctx,
		&clusterpb.JoinRequest{Node: e.self(), ReplaceLost: e.cfg.ReplaceLost})
	if err != nil {
		return nil, fromWire(err)
	}
	if resp.ClusterId != m.id.ClusterId || resp.ClusterId == 0 || resp.NodeId == 0 {
		return nil, fmt.Errorf("it answers for cluster %x and gives node id %d, and said before that it is of cluster %x",
			resp.ClusterId, resp.NodeId, m.id.ClusterId)
	}
	return resp, nil
}

// adopt makes this node what the member's answer says. A crash before it is durable costs nothing: the member
// gives the same id again.
func (e *Entry) adopt(resp *clusterpb.JoinResponse, via *peer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := proto.CloneOf(e.cfg.Store.Identity())
	if id.ClusterId != 0 {
		return fmt.Errorf("join: a member of cluster %x adopts cluster %x", id.ClusterId, resp.ClusterId)
	}
	id.ClusterId, id.NodeId = resp.ClusterId, resp.NodeId
	id.ClusterCreatedUnixMicros = resp.ClusterCreatedUnixMicros
	if err := e.cfg.Store.Adopt(id, &metapb.AddressBook{Nodes: resp.Nodes}); err != nil {
		return fmt.Errorf("join: writing the store's identity: %w", err)
	}
	e.cfg.Logger.Info("joined the cluster", "cluster", fmt.Sprintf("%x", id.ClusterId),
		"node", id.NodeId, "via", via.address)
	e.enter(&Outcome{Identity: id, Nodes: resp.Nodes, Root: resp.Root})
	return nil
}

// found makes a new cluster if this node's consent is still its own and was not given away since `changes`.
func (e *Entry) found(changes uint64) (*Outcome, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := proto.CloneOf(e.cfg.Store.Identity())
	if id.ClusterId != 0 {
		return nil, fmt.Errorf("join: a member of cluster %x founds another", id.ClusterId)
	}
	own, err := e.cfg.Store.Consent()
	if err != nil {
		return nil, fmt.Errorf("join: reading the consent: %w", err)
	}
	if e.changes != changes || !e.isSelf(own) {
		return nil, errLostCandidacy
	}
	if id.ClusterId, err = newClusterID(); err != nil {
		return nil, err
	}
	id.NodeId = 1
	id.ClusterCreatedUnixMicros = time.Now().UnixMicro()
	self := e.self()
	self.NodeId, self.State = id.NodeId, metapb.NodeState_NODE_STATE_ACTIVE
	if err := e.cfg.Store.Found(id, self); err != nil {
		return nil, fmt.Errorf("join: writing the new cluster: %w", err)
	}
	e.cfg.Logger.Info("made a new cluster", "cluster", fmt.Sprintf("%x", id.ClusterId), "node", id.NodeId)
	e.enter(&Outcome{Identity: id, Founded: true})
	return e.outcome, nil
}

// enter ends the waiting. mu is held.
func (e *Entry) enter(o *Outcome) {
	e.outcome = o
	close(e.entered)
}

// looksUp says whether --join has names, which may lead to other nodes later.
func (e *Entry) looksUp() bool {
	return slices.ContainsFunc(e.sources, func(s source) bool { return s.name != "" })
}

func (e *Entry) isMember() bool {
	select {
	case <-e.entered:
		return true
	default:
		return false
	}
}

func (e *Entry) takeTurn(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Entry) yieldTurn() { <-e.turn }

// self is this node's record without an id.
func (e *Entry) self() *metapb.NodeRecord {
	rec := proto.CloneOf(e.cfg.Self)
	rec.NodeId, rec.StoreUuid = 0, e.uuid
	return rec
}

// newClusterID draws a cluster's id; 0 means none and is drawn again.
func newClusterID() (uint64, error) {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("join: drawing a cluster id: %w", err)
		}
		if id := binary.BigEndian.Uint64(b[:]); id != 0 {
			return id, nil
		}
	}
}
