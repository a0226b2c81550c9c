package join

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// Cluster is what a registrar needs of the cluster that its node is a member of. The errors are those of
// internal/base.
type Cluster interface {
	sysrec.Cluster
	// Root is the root range's descriptor as far as this node knows: where a newcomer's addressing begins.
	Root(ctx context.Context) (*metapb.RangeDescriptor, error)
}

// RegistrarConfig says what a Registrar works with.
type RegistrarConfig struct {
	Cluster Cluster
	// Identity is this node's; cluster_id is 0 until it is a member.
	Identity     func() *metapb.StoreIdentity
	Version      string
	Dial         Dialer
	ProbeTimeout time.Duration
	UnixMicros   func() int64 // the wall clock; nil: the machine's
	Logger       *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *RegistrarConfig) EnsureDefaults() {
	if c.Dial == nil {
		c.Dial = Dial
	}
	if c.UnixMicros == nil {
		c.UnixMicros = func() int64 { return time.Now().UnixMicro() }
	}
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, base.JoinProbeTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *RegistrarConfig) Validate() error {
	var errs []error
	if c.Cluster == nil {
		errs = append(errs, errors.New("no cluster"))
	}
	if c.Identity == nil {
		errs = append(errs, errors.New("no identity"))
	}
	if _, err := parseVersion(c.Version); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Registrar lets nodes into the cluster that its own node is a member of, and keeps their records. It holds
// nothing in memory: every member's registrar can do it, at the same time.
type Registrar struct{ cfg RegistrarConfig }

// NewRegistrar returns a registrar.
func NewRegistrar(cfg RegistrarConfig) (*Registrar, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("join: registrar: %w", err)
	}
	return &Registrar{cfg: cfg}, nil
}

// Join gives the node an id, and the same one if it had one already.
func (r *Registrar) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error) {
	own := r.cfg.Identity()
	if own.ClusterId == 0 {
		return nil, ErrNotInitialised
	}
	if err := r.checkNode(req.Node); err != nil {
		return nil, err
	}
	n := newcomer{node: req.Node, replaceLost: req.ReplaceLost, member: base.NodeID(own.NodeId), cluster: own.ClusterId, unixMicros: r.cfg.UnixMicros()}
	n.answer, n.silence = r.probe(ctx, req.Node.Address)
	var id uint64
	nodes, err := r.update(ctx, func(l *ledger) (*change, error) {
		c, err := admit(l, &n)
		if c != nil {
			id = c.record.NodeId
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	root, err := r.cfg.Cluster.Root(ctx)
	if err != nil {
		return nil, err
	}
	r.cfg.Logger.Info("let a node in", "node", id, "address", req.Node.Address)
	return &clusterpb.JoinResponse{ClusterId: own.ClusterId, NodeId: id,
		ClusterCreatedUnixMicros: own.ClusterCreatedUnixMicros, Nodes: nodes, Root: root}, nil
}

// Announce records that a member started again.
func (r *Registrar) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
	own := r.cfg.Identity()
	if own.ClusterId == 0 {
		return nil, ErrNotInitialised
	}
	if req.ClusterId != own.ClusterId {
		return nil, refusef("the store belongs to cluster %x, and this node (%s) to cluster %x: "+
			"start it with the addresses of its own cluster, or with an empty store directory",
			req.ClusterId, base.NodeID(own.NodeId), own.ClusterId)
	}
	if err := r.checkNode(req.Node); err != nil {
		return nil, err
	}
	n := newcomer{node: req.Node, member: base.NodeID(own.NodeId), cluster: own.ClusterId, unixMicros: r.cfg.UnixMicros()}
	probed := false
	nodes, err := r.update(ctx, func(l *ledger) (*change, error) {
		old := l.byID(req.Node.NodeId)
		if !probed && (old == nil || old.record.Address != req.Node.Address) {
			n.answer, n.silence = r.probe(ctx, req.Node.Address)
			probed = true
		}
		return announce(l, &n)
	})
	if err != nil {
		return nil, err
	}
	root, err := r.cfg.Cluster.Root(ctx)
	if err != nil {
		return nil, err
	}
	return &clusterpb.AnnounceResponse{Nodes: nodes, Root: root}, nil
}

func (r *Registrar) checkNode(n *metapb.NodeRecord) error {
	if len(n.GetStoreUuid()) != uuidLen {
		return refusef("the store's uuid has %d bytes, it should have %d", len(n.GetStoreUuid()), uuidLen)
	}
	if err := CheckAddress(n.Address); err != nil {
		return refusef("the advertised address: %v: give one with --advertise", err)
	}
	if err := compatible(r.cfg.Version, n.Version); err != nil {
		return refusef("%v", err)
	}
	return nil
}

// probe asks who answers at the address, and waits for it to be up as long as a probe may take: a newcomer's
// name may be younger than the resolver's last answer.
func (r *Registrar) probe(ctx context.Context, address string) (*clusterpb.IdentityResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ProbeTimeout)
	defer cancel()
	return probe(ctx, r.cfg.Dial, address, grpc.WaitForReady(true))
}

// update reads the ledger, lets decide say what to change, and writes it if nothing relevant changed meanwhile;
// otherwise it begins again. It returns the records as they are afterwards. Since decide finds what an earlier
// try may have written, an outcome that is not known is settled by the next try.
func (r *Registrar) update(ctx context.Context, decide func(*ledger) (*change, error)) ([]*metapb.NodeRecord, error) {
	for range base.RegistrarTries {
		l, err := readLedger(ctx, r.cfg.Cluster)
		if err != nil {
			return nil, err
		}
		c, err := decide(l)
		if err != nil {
			return nil, err
		}
		if !c.writes {
			return l.records(), nil
		}
		done, err := l.commit(ctx, r.cfg.Cluster, c)
		var ambiguous *base.Ambiguous
		switch {
		case err == nil && done:
			return l.after(c), nil
		case err != nil && (!errors.As(err, &ambiguous) || ctx.Err() != nil):
			return nil, err
		}
	}
	return nil, &base.Throttled{What: "changes of the node records", RetryAfter: base.JoinRetryMax}
}

func sameStore(a, b []byte) bool { return bytes.Equal(a, b) }
