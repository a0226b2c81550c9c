// Package alarm is etcd's alarms: records in `sys`, one for each member and kind, which every node knows and whose gateway then refuses
// what is to be refused. Each node looks at the size of its own store and raises NOSPACE for itself when that is above the quota.
// Every node hears of alarms with the answer to its heartbeat, so a second at most after they were raised or taken back. An alarm is taken
// back by a person; where the reason is still there it is raised again.
package alarm

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// Config is what alarms rest on.
type Config struct {
	Node    base.NodeID
	Cluster sysrec.Cluster
	// Quota is how many bytes the store may take on disk; 0: any number. Used is how many it does.
	Quota  int64
	Used   func() int64
	Logger *slog.Logger
}

// Alarms is a node's view of all alarms, and the guard of its own store's size.
type Alarms struct {
	cfg   Config
	known atomic.Pointer[[]*pb.AlarmMember]
	over  atomic.Bool // this node's store is above its quota

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes it; Start begins to look at the store.
func New(cfg Config) *Alarms {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Alarms{cfg: cfg}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Start begins to look at the size of the store, if it has a quota.
func (a *Alarms) Start() {
	if a.cfg.Quota > 0 {
		a.wg.Go(a.run)
	}
}

// Stop ends it.
func (a *Alarms) Stop() {
	a.cancel()
	a.wg.Wait()
}

// Learn is told which alarms there are.
func (a *Alarms) Learn(all []*pb.AlarmMember) { a.known.Store(&all) }

// Known are the alarms as this node heard of them last. They must not be changed.
func (a *Alarms) Known() []*pb.AlarmMember {
	if k := a.known.Load(); k != nil {
		return *k
	}
	return nil
}

// Admit says why a client's write is refused, as etcd does; nil: it is not. grows: it makes the data larger.
func (a *Alarms) Admit(grows bool) error {
	full := a.over.Load()
	for _, m := range a.Known() {
		switch m.Alarm {
		case pb.AlarmType_CORRUPT:
			return rpctypes.ErrGRPCCorrupt
		case pb.AlarmType_NOSPACE:
			full = true
		}
	}
	if full && grows {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}

// Do carries out what a client asks of alarms, and returns those that it was about, as etcd does.
func (a *Alarms) Do(ctx context.Context, req *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	switch req.Action {
	case pb.AlarmRequest_GET:
		return a.get(ctx, req)
	case pb.AlarmRequest_ACTIVATE:
		if req.Alarm == pb.AlarmType_NONE {
			return nil, nil
		}
		m := &pb.AlarmMember{MemberID: req.MemberID, Alarm: req.Alarm}
		return []*pb.AlarmMember{m}, a.raise(ctx, m)
	case pb.AlarmRequest_DEACTIVATE:
		return a.clear(ctx, req)
	}
	return nil, nil
}

// get lists alarms as `sys` has them, or, if that cannot be asked, as they were heard of last: who watches over the cluster asks too.
func (a *Alarms) get(ctx context.Context, req *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	asking, cancel := context.WithTimeout(ctx, base.HeartbeatTimeout)
	defer cancel()
	all, err := a.read(asking)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		all = a.Known()
	}
	return slices.DeleteFunc(slices.Clone(all), func(m *pb.AlarmMember) bool { return !meant(req, m) }), nil
}

// meant says whether a request is about an alarm. Without a member it is about those of all.
func meant(req *pb.AlarmRequest, m *pb.AlarmMember) bool {
	return (req.MemberID == 0 || req.MemberID == m.MemberID) && (req.Alarm == pb.AlarmType_NONE || req.Alarm == m.Alarm)
}

func (a *Alarms) read(ctx context.Context) ([]*pb.AlarmMember, error) {
	start, end := sysrec.AlarmSpan()
	kvs, err := sysrec.List(ctx, a.cfg.Cluster, start, end)
	if err != nil {
		return nil, err
	}
	var raw [][]byte
	for _, kv := range kvs {
		raw = append(raw, kv.Value)
	}
	all, err := sysrec.Alarms(raw)
	if err == nil {
		a.Learn(all)
	}
	return all, err
}

// raise stores an alarm. It may be repeated.
func (a *Alarms) raise(ctx context.Context, m *pb.AlarmMember) error {
	key := sysrec.AlarmKey(m)
	var t sysrec.Txn
	t.At(key, 0)
	t.PutMessage(key, m)
	done, err := t.Commit(ctx, a.cfg.Cluster)
	if err == nil {
		_, err = a.read(ctx)
	}
	if done && err == nil {
		a.cfg.Logger.Warn("an alarm is raised", "alarm", m.Alarm, "node", base.NodeID(m.MemberID))
	}
	return err
}

// clear takes alarms back, those that are there. It may be repeated.
func (a *Alarms) clear(ctx context.Context, req *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	all, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m *pb.AlarmMember) bool { return !meant(req, m) })
	if len(all) == 0 {
		return nil, nil
	}
	var t sysrec.Txn
	for _, m := range all {
		t.Delete(sysrec.AlarmKey(m))
	}
	if _, err := t.Commit(ctx, a.cfg.Cluster); err != nil {
		return nil, err
	}
	for _, m := range all {
		a.cfg.Logger.Info("an alarm is taken back", "alarm", m.Alarm, "node", base.NodeID(m.MemberID))
	}
	_, err = a.read(ctx)
	return all, err
}

// run looks at the store's size again and again.
func (a *Alarms) run() {
	tick := time.NewTicker(base.QuotaInterval)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-tick.C:
		case <-a.ctx.Done():
			return
		}
		if err := a.look(); err != nil && a.ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			a.cfg.Logger.Warn("an alarm cannot be raised; it is tried again, and this node takes no writes meanwhile", "error", err)
		}
	}
}

// look raises this node's alarm if its store is too large and the alarm is not there.
func (a *Alarms) look() error {
	over := a.cfg.Used() > a.cfg.Quota
	if a.over.Swap(over) != over {
		a.cfg.Logger.Info("the store's size passed its quota", "above", over, "bytes", a.cfg.Used(), "quota", a.cfg.Quota)
	}
	own := &pb.AlarmMember{MemberID: uint64(a.cfg.Node), Alarm: pb.AlarmType_NOSPACE}
	if !over || slices.ContainsFunc(a.Known(), func(m *pb.AlarmMember) bool { return proto.Equal(m, own) }) {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, base.RequestTimeout)
	defer cancel()
	err := a.raise(ctx, own)
	var ambiguous *base.Ambiguous
	if errors.As(err, &ambiguous) {
		return nil // the next look finds out
	}
	return err
}
