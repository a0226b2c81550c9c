package keyspace

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// Cluster is what a Manager needs of the cluster that its node is a member of. The errors are those of internal/base.
type Cluster interface {
	Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error)
	Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error)
	// Place makes a node's replica of a new range; End ends a node's replica of one that is dropped. Both may be repeated.
	Place(ctx context.Context, node base.NodeID, d *metapb.RangeDescriptor) error
	End(ctx context.Context, node base.NodeID, d *metapb.RangeDescriptor) error
	// Descriptor is the range that holds a key, as a replica that has applied all that is committed knows it.
	Descriptor(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error)
	// Confirm returns when a node's replica of a range has applied a generation of it, durably.
	Confirm(ctx context.Context, node base.NodeID, id base.RangeID, generation base.Generation) error
	// Align returns when a range's replicas are voters on the same nodes as another's, and nowhere else.
	Align(ctx context.Context, d, with *metapb.RangeDescriptor) error
}

// Config says what a Manager works with.
type Config struct {
	Cluster Cluster
	// Nodes are those that can take a new replica now, the one to be given it first in front.
	Nodes      func() []base.NodeID
	UnixMicros func() int64
	Logger     *slog.Logger
}

// Manager holds nothing but a cache of names: every node's can do all of it, at the same time. Its methods may be called from any
// goroutine.
type Manager struct {
	cfg Config

	splits atomic.Uint64 // that somebody asked for, since the node was started

	mu    sync.Mutex
	names map[string]known
}

// known is what a name led to when it was last looked up.
type known struct {
	id    base.KeyspaceID
	until time.Time
}

// New makes a manager.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg, names: make(map[string]known)}
}

// replicas is how many a new keyspace's first range begins with, where there are nodes enough; with fewer it begins with one, and
// more are added as nodes come.
const replicas = 3

// Create makes a keyspace, and returns when it can be used. If one of that name is being made, it goes on with it.
func (m *Manager) Create(ctx context.Context, name string, single bool) (*metapb.KeyspaceRecord, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	rec, err := m.begin(ctx, name, single)
	if err != nil {
		return nil, err
	}
	if err := m.place(ctx, rec.First); err != nil {
		return nil, err
	}
	// Whoever answers leads it, and the index knows of it.
	if _, err := m.cfg.Cluster.Range(ctx, base.KeyspaceID(rec.KeyspaceId), &pb.RangeRequest{Key: []byte{0}, KeysOnly: true}); err != nil {
		return nil, err
	}
	active := proto.CloneOf(rec.KeyspaceRecord)
	active.State = metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE
	ok, err := m.write(ctx, name, rec.revision, active)
	if err != nil {
		return nil, err
	}
	if !ok { // somebody else went on with it
		if rec, err = m.read(ctx, name); err != nil {
			return nil, err
		}
		if rec == nil || rec.KeyspaceId != active.KeyspaceId || rec.State != active.State {
			return nil, status.Errorf(codes.Aborted, "%s was dropped while it was made", name)
		}
	}
	m.cfg.Logger.Info("keyspace made", "name", name, "id", base.KeyspaceID(active.KeyspaceId), "range", active.First.RangeId)
	return active, nil
}

// begin returns the record of a keyspace that is being made.
func (m *Manager) begin(ctx context.Context, name string, single bool) (*stored, error) {
	for {
		rec, err := m.read(ctx, name)
		if err != nil {
			return nil, err
		}
		switch {
		case rec == nil:
		case rec.State == metapb.KeyspaceState_KEYSPACE_STATE_DROPPING:
			return nil, status.Errorf(codes.FailedPrecondition, "%s is being dropped: wait until it is gone, or run cairn keyspace drop %[1]s again", name)
		case rec.State == metapb.KeyspaceState_KEYSPACE_STATE_CREATING && rec.Single == single:
			return rec, nil
		default:
			return nil, status.Errorf(codes.AlreadyExists, "there is a keyspace %s already: see cairn keyspace ls", name)
		}
		if rec, err = m.draw(ctx, name, single); err != nil {
			return nil, err
		}
		if _, err := m.write(ctx, name, 0, rec.KeyspaceRecord); err != nil {
			return nil, err
		}
	}
}

// draw makes the record of a new keyspace.
func (m *Manager) draw(ctx context.Context, name string, single bool) (*stored, error) {
	nodes := m.cfg.Nodes()
	switch {
	case len(nodes) == 0:
		return nil, &base.NotLeader{} // no node is known to be up: try again
	case len(nodes) >= replicas:
		nodes = nodes[:replicas]
	default:
		nodes = nodes[:1]
	}
	number, err := m.next(ctx, keyspaceCounter)
	if err != nil {
		return nil, err
	}
	id := base.KeyspaceID(number)
	if single {
		id = id.AsSingle()
	}
	rangeID, err := m.next(ctx, rangeCounter)
	if err != nil {
		return nil, err
	}
	first := &metapb.RangeDescriptor{RangeId: rangeID, KeyspaceId: uint64(id), Generation: 1, NextReplicaId: uint64(len(nodes) + 1)}
	for i, n := range nodes {
		first.Replicas = append(first.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: uint64(n), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return &stored{KeyspaceRecord: &metapb.KeyspaceRecord{
		KeyspaceId: uint64(id), Name: name, Single: single, State: metapb.KeyspaceState_KEYSPACE_STATE_CREATING,
		First: first, CreatedUnixMicros: m.cfg.UnixMicros(),
	}}, nil
}

// place makes the first range's replicas. A majority is enough: their leader brings the others up.
func (m *Manager) place(ctx context.Context, d *metapb.RangeDescriptor) error {
	errs := each(d, func(n base.NodeID) error { return m.cfg.Cluster.Place(ctx, n, d) })
	if done := len(d.Replicas) - len(errs); done <= len(d.Replicas)/2 {
		return errors.Join(errs...)
	}
	return nil
}

// each does f for all nodes of a range at once, and returns what failed.
func each(d *metapb.RangeDescriptor, f func(base.NodeID) error) (errs []error) {
	var nodes []base.NodeID
	for _, r := range d.Replicas {
		nodes = append(nodes, base.NodeID(r.NodeId))
	}
	return atOnce(nodes, f)
}

func atOnce(nodes []base.NodeID, f func(base.NodeID) error) (errs []error) {
	results := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { results[i] = f(n) })
	}
	wg.Wait()
	for _, err := range results {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// MayPlace says whether a range is the first of a keyspace that is being made: whoever was asked late makes no replica of one that
// was dropped since.
func (m *Manager) MayPlace(ctx context.Context, d *metapb.RangeDescriptor) error {
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	for _, rec := range all {
		if rec.KeyspaceId == d.KeyspaceId && rec.State == metapb.KeyspaceState_KEYSPACE_STATE_CREATING && desc.Equal(rec.First, d) {
			return nil
		}
	}
	return status.Errorf(codes.FailedPrecondition, "no keyspace that is being made begins with %s", desc.Format(d))
}

// Gone says whether a keyspace is certainly no more: ids are never used twice.
func (m *Manager) Gone(ctx context.Context, ks base.KeyspaceID) (bool, error) {
	if ks < base.FirstFreeID {
		return false, nil
	}
	all, err := m.List(ctx)
	if err != nil {
		return false, err
	}
	for _, rec := range all {
		if base.KeyspaceID(rec.KeyspaceId) == ks && rec.State != metapb.KeyspaceState_KEYSPACE_STATE_DROPPING {
			return false, nil
		}
	}
	return true, nil
}

// Find returns the keyspace that a client's name leads to. What it says may be as old as base.KeyspaceNameTTL.
func (m *Manager) Find(ctx context.Context, name string) (base.KeyspaceID, error) {
	if name == "" || name == base.KeyspaceDefault.String() {
		return base.KeyspaceDefault, nil
	}
	now := time.Now()
	m.mu.Lock()
	k, ok := m.names[name]
	m.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.id, nil
	}
	if err := CheckName(name); err != nil {
		return 0, err
	}
	rec, err := m.read(ctx, name)
	if err != nil {
		return 0, err
	}
	if rec == nil || rec.State != metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE {
		m.forget(name)
		return 0, &base.NoKeyspace{Name: name}
	}
	m.mu.Lock()
	if len(m.names) >= base.KeyspaceNames {
		clear(m.names)
	}
	m.names[name] = known{base.KeyspaceID(rec.KeyspaceId), now.Add(base.KeyspaceNameTTL)}
	m.mu.Unlock()
	return base.KeyspaceID(rec.KeyspaceId), nil
}

func (m *Manager) forget(name string) {
	m.mu.Lock()
	delete(m.names, name)
	m.mu.Unlock()
}
