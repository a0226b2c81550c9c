package serve

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// snapshotChunkBytes is how much of a snapshot one message carries, about: as etcd's.
const snapshotChunkBytes = 64 << 10

// Snapshot sends a snapshot of the clients' data of the whole cluster (node/backup): one moment of each keyspace. A client that takes
// nothing for a while is sent nothing more.
func (s *maintenanceService) Snapshot(_ *pb.SnapshotRequest, out grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	total, _ := s.cfg.Backend.StoreStats()
	w := &snapshotWriter{cfg: s.cfg, out: out, left: total}
	done := make(chan error, 1)
	s.streams.Go(func() { // it may hang in a message, until this function returns
		err := s.cfg.Backend.Snapshot(ctx, w)
		if err == nil {
			w.left = 0
			err = w.flush()
		}
		done <- err
	})
	tick := time.NewTicker(base.ArchiveStall / 4)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if since := w.hanging.Load(); since != nil && time.Since(*since) > base.ArchiveStall {
				return status.Errorf(codes.DeadlineExceeded, "nothing of the snapshot was taken for %s", base.ArchiveStall)
			}
		}
	}
}

// snapshotWriter makes messages of what is written to it.
type snapshotWriter struct {
	cfg     *Config
	out     grpc.ServerStreamingServer[pb.SnapshotResponse]
	left    int64 // bytes: a guess, by the size of this node's store; at least 1 before the last message
	chunk   []byte
	begun   bool
	hanging atomic.Pointer[time.Time] // since when a message is being sent
}

func (w *snapshotWriter) Write(b []byte) (int, error) {
	w.chunk = append(w.chunk, b...)
	if len(w.chunk) < snapshotChunkBytes {
		return len(b), nil
	}
	w.left = max(1, w.left-int64(len(w.chunk)))
	return len(b), w.flush()
}

// flush sends what is there.
func (w *snapshotWriter) flush() error {
	resp := &pb.SnapshotResponse{RemainingBytes: uint64(w.left), Blob: w.chunk, Version: EtcdVersion}
	if !w.begun {
		resp.Header = w.cfg.fillHeader(base.KeyspaceDefault, nil)
		w.begun = true
	}
	now := time.Now()
	w.hanging.Store(&now)
	err := w.out.Send(resp)
	w.hanging.Store(nil)
	w.chunk = nil
	return err
}
