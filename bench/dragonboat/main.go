// Command dragonboat measures dragonboat as cmd/bench's peer for Cairn's bare loops: three NodeHosts in one process,
// joined by dragonboat's own in-process transport, with synced logs on disk. Clients propose at the leader.
package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	transport "github.com/lni/dragonboat/v4/plugin/chan"

	"github.com/cairndb/cairn/bench/closed"
)

const (
	// tickMillis is dragonboat's logical clock: an election after ten of them without a leader, as in its examples,
	// but of 50 ms and not 200, so that the groups have leaders soon after the start.
	tickMillis     = 50
	electionTicks  = 10
	heartbeatTicks = 1
	// logEntries: a snapshot of the state machine, which is tiny, after so many entries, and as many kept after it:
	// as much log as Cairn keeps.
	logEntries = 10_000
	// askEvery is how often it is asked whether a group is led by whom it should be.
	askEvery = 20 * time.Millisecond
)

func main() {
	logger.SetLoggerFactory(newLogger)
	closed.Main(start)
}

// hosts are the nodes.
type hosts [closed.Nodes]*dragonboat.NodeHost

// start starts the nodes and all groups, and waits until each group is led by the node that should lead it.
func start(ctx context.Context, p closed.Program) (_ closed.Subject, err error) {
	h := new(hosts)
	defer func() {
		if err != nil {
			_ = h.Close() // the error that matters is err
		}
	}()
	members := map[uint64]dragonboat.Target{}
	for i := range h {
		address := fmt.Sprintf("node-%d:1", i+1)
		members[uint64(i+1)] = address
		if h[i], err = dragonboat.NewNodeHost(hostConfig(filepath.Join(p.Folder, fmt.Sprint(i+1)), address)); err != nil {
			return nil, err
		}
	}
	for g := range p.Groups {
		for i := range h {
			if err := h[i].StartReplica(members, false, newCounter, groupConfig(shard(g), uint64(i+1))); err != nil {
				return nil, err
			}
		}
	}
	for g := range p.Groups {
		if err := h.placeLeader(ctx, g); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// shard is the id of a group; 0 is none.
func shard(group int) uint64 { return uint64(group + 1) }

func hostConfig(folder, address string) config.NodeHostConfig {
	return config.NodeHostConfig{
		NodeHostDir: folder, RaftAddress: address, RTTMillisecond: tickMillis,
		Expert: config.ExpertConfig{
			TransportFactory: &inProcess{},
			Engine:           config.GetDefaultEngineConfig(),
			LogDB:            config.GetDefaultLogDBConfig(),
		},
	}
}

func groupConfig(shard, replica uint64) config.Config {
	return config.Config{
		ShardID: shard, ReplicaID: replica, CheckQuorum: true, PreVote: true,
		ElectionRTT: electionTicks, HeartbeatRTT: heartbeatTicks,
		SnapshotEntries: logEntries, CompactionOverhead: logEntries,
		WaitReady: true,
	}
}

// inProcess is dragonboat's transport over channels, which leaves it to others to say which addresses are valid.
type inProcess struct{ transport.ChanTransportFactory }

func (*inProcess) Validate(address string) bool { return address != "" }

// placeLeader moves a group's leadership to where it belongs.
func (h *hosts) placeLeader(ctx context.Context, group int) error {
	want := uint64(group%closed.Nodes) + 1
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		leader, _, known, err := h[want-1].GetLeaderID(shard(group))
		if err != nil {
			return err
		}
		if known && leader == want {
			return nil
		}
		if known {
			// Refused while another transfer is under way, or by one that leads no more: it is tried again.
			_ = h[leader-1].RequestLeaderTransfer(shard(group), want)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("group %d is not led by node %d: %w", group, want, ctx.Err())
		case <-again.C:
		}
	}
}

// Propose implements closed.Subject.
func (h *hosts) Propose(ctx context.Context, group int, entry []byte) error {
	host := h[group%closed.Nodes]
	result, err := host.SyncPropose(ctx, host.GetNoOPSession(shard(group)), entry)
	if err == nil && result.Value != uint64(len(entry)) {
		err = fmt.Errorf("an entry of %d bytes was applied as one of %d", len(entry), result.Value)
	}
	return err
}

// Close implements closed.Subject.
func (h *hosts) Close() error {
	for _, host := range h {
		if host != nil {
			host.Close()
		}
	}
	return nil
}
