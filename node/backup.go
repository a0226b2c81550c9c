package node

import (
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/alarm"
	"github.com/cairndb/cairn/node/backup"
	"github.com/cairndb/cairn/node/retention"
)

// This file gives what keeps the store in bounds, and what saves it, what it needs of the node.

// keep makes the parts that keep the store from growing without end.
func (n *Node) keep(m *member, self base.NodeID) (err error) {
	m.alarms = alarm.New(alarm.Config{
		Node: self, Cluster: m.dispatch, Quota: n.cfg.QuotaBytes, Logger: n.cfg.Logger,
		Used: func() int64 { return int64(n.eng.Metrics().DiskBytes) },
	})
	m.retention, err = retention.New(retention.Config{
		Policy: n.cfg.Retention, Own: n.cfg.OwnHistory, Node: self, Store: m.store, Compact: m.dispatch.CompactRange, Micros: m.dispatch.NowMicros, Logger: n.cfg.Logger,
	})
	return err
}

// Alarm implements serve.Backend.
func (n *Node) Alarm(ctx context.Context, req *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.alarms.Do(ctx, req)
}

// Alarms implements serve.Backend.
func (n *Node) Alarms() []*pb.AlarmMember {
	if m := n.current(); m != nil {
		return m.alarms.Known()
	}
	return nil
}

// Admit implements serve.Backend.
func (n *Node) Admit(grows bool) error {
	if m := n.current(); m != nil {
		return m.alarms.Admit(grows)
	}
	return nil // what needs a cluster says so itself
}

// Quota implements serve.Backend.
func (n *Node) Quota() int64 { return n.cfg.QuotaBytes }

// Snapshot implements serve.Backend.
func (n *Node) Snapshot(ctx context.Context, w io.Writer) error {
	m, err := n.notYet()
	if err != nil {
		return err
	}
	id := n.storeIdentity()
	return backup.Save(ctx, &backup.Source{
		Cluster: m.dispatch, Keyspaces: m.keyspaces.List, Pin: m.store.Pin,
		Beginning: &archivepb.Beginning{
			Writer: n.cfg.Version, ClusterId: id.ClusterId, ClusterCreatedUnixMicros: id.ClusterCreatedUnixMicros,
			TakenUnixMicros: n.faults.unixMicros(),
		},
	}, w)
}
