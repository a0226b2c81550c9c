// Package retention compacts the history of the ranges that its node leads when meta/retention says so. What a compaction hides is
// removed by every replica on its own, in the background (node/store).
package retention

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/retention"
	"github.com/cairndb/cairn/raftgroup"
)

// Store is what is seen of this node's replicas.
type Store interface {
	Ranges() []base.RangeID
	State(base.RangeID) (raftgroup.StateChange, bool)
	View(base.RangeID) *apply.View
	Now() base.Instant
}

// Config is what it works with.
type Config struct {
	Policy retention.Policy
	Node   base.NodeID
	Store  Store
	// Compact has one range, that this node leads, forget what is before a revision.
	Compact func(ctx context.Context, r *metapb.RangeDescriptor, cmd *kvpb.Command) error
	// Micros is the time since the cluster was made.
	Micros func() int64
	Logger *slog.Logger
}

// Retention runs until it is stopped. With a policy that keeps everything it does nothing.
type Retention struct {
	cfg    Config
	keeper *retention.Keeper
	done   atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes one; Start runs it.
func New(cfg Config) (*Retention, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Retention{cfg: cfg}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if cfg.Policy.Mode == retention.Off {
		return r, nil
	}
	var err error
	r.keeper, err = retention.New(cfg.Policy)
	return r, err
}

// Start runs it.
func (r *Retention) Start() {
	if r.keeper != nil {
		r.wg.Go(r.run)
	}
}

// Stop ends it.
func (r *Retention) Stop() {
	r.cancel()
	r.wg.Wait()
}

// Compacted is how many compactions this node has decided on and seen through.
func (r *Retention) Compacted() uint64 { return r.done.Load() }

func (r *Retention) run() {
	tick := time.NewTicker(r.keeper.Interval())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		r.carryOut(r.keeper.Step(r.cfg.Store.Now(), r.cfg.Micros(), r.led()))
	}
}

// led are the ranges of clients' keyspaces that this node leads.
func (r *Retention) led() (out []retention.Range) {
	for _, id := range r.cfg.Store.Ranges() {
		st, ok := r.cfg.Store.State(id)
		if !ok || st.LeaderNode != r.cfg.Node {
			continue
		}
		v := r.cfg.Store.View(id)
		if v == nil || !ofClients(base.KeyspaceID(v.Descriptor.KeyspaceId)) || v.Descriptor.Frozen != nil {
			continue
		}
		out = append(out, retention.Range{
			ID: id, Sharded: base.KeyspaceID(v.Descriptor.KeyspaceId).Splits(), Revision: v.Counters.Revision, Compacted: v.Counters.Compacted,
		})
	}
	return out
}

func ofClients(ks base.KeyspaceID) bool { return ks >= base.KeyspaceDefault }

// carryOut has what is due compacted, a few at a time.
func (r *Retention) carryOut(due []retention.Decision) {
	slots := make(chan struct{}, base.RetentionAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range due {
		select {
		case slots <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.compact(d); err != nil && r.ctx.Err() == nil {
				r.cfg.Logger.Warn("history was not compacted; it is tried again", "range", d.ID, "revision", d.Revision, "error", err)
			}
		})
	}
}

func (r *Retention) compact(d retention.Decision) error {
	v := r.cfg.Store.View(d.ID)
	if v == nil {
		return nil // it is gone
	}
	raw, err := proto.Marshal(&pb.CompactionRequest{Revision: int64(d.Revision)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	err = r.cfg.Compact(ctx, v.Descriptor, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: raw}})
	if status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCCompacted).Message() { // it may come from another node
		return nil // somebody did it by hand
	}
	if err != nil {
		return fmt.Errorf("compaction: %w", err)
	}
	r.done.Add(1)
	r.cfg.Logger.Info("history compacted", "range", d.ID, "revision", d.Revision)
	return nil
}
