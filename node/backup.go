package node

import (
	"context"
	"io"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/node/backup"
)

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
