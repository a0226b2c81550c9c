package observe

import (
	"strings"
	"time"

	"github.com/cairndb/cairn/api/metapb"
)

// This file names the series. Names are only ever added; docs/operations.md says which of them to look at.

func (s *sink) node(r *Reading) {
	s.gauge("cairn_build_info", "Always 1; the labels say which version runs.", 1, "version", r.Version)
	s.gauge("cairn_node_member", "1 if this node is part of a cluster.", truth(r.Member != nil))
	s.gauge("cairn_node_serving", "1 if this node serves clients now; 0 before it has joined, while it is fenced, and once it begins to stop.", truth(r.Serving))
	s.counter("etcd_server_health_success", "Answers of /health that were true.", r.Healthy)
	s.counter("etcd_server_health_failures", "Answers of /health that were false.", r.Unhealthy)
	s.gauge("etcd_server_version", "Always 1; the label is the version of etcd whose API is served.", 1, "server_version", r.EtcdVersion)
}

func (s *sink) calls(calls []Call) {
	for _, c := range calls {
		of := []string{"grpc_type", c.Kind, "grpc_service", c.Service, "grpc_method", c.Method}
		s.counter("grpc_server_started_total", "Calls that began on this node.", c.Started, of...)
		for code, n := range c.Ended {
			s.counter("grpc_server_handled_total", "Calls that ended on this node, by gRPC's code.", n, append(of[:len(of):len(of)], "grpc_code", code.String())...)
		}
	}
}

func (s *sink) store(m *Member) {
	st := m.Store
	s.gauge("cairn_ranges_led", "Ranges that this node leads.", float64(st.GetLeaders()))
	s.gauge("cairn_ranges_led_resting", "Of these, those that are idle and cost nothing.", float64(st.GetLeadersResting()))
	s.counter("cairn_leases_lost_total", "How often another node's support for this one ran out, on which its leases rest.", st.GetLeasesLost())
	s.gauge("cairn_client_leases", "Leases of clients that live in ranges which this node leads.", float64(m.ClientLeases))
	s.counter("cairn_client_leases_expired_total", "Of these, those whose time was over.", m.LeasesExpired)
	s.counter("cairn_client_leases_kept_alive_total", "Keep-alives that this node answered for them.", m.LeasesKept)
	s.counter("cairn_loop_passes_total", "Passes of the loops; each syncs at most once.", st.GetPasses())
	s.counter("cairn_store_syncs_total", "Syncs of the write-ahead log.", st.GetSyncs())
	s.counter("cairn_store_written_bytes_total", "Bytes written to the log and to tables.", st.GetBytesWritten())
	s.counter("cairn_store_compactions_total", "Compactions of the storage engine.", st.GetCompactions())
	s.gauge("cairn_store_bytes", "Bytes of the store on disk.", float64(st.GetDiskBytes()))
	s.gauge("cairn_store_memtable_bytes", "Memory of what is not flushed to tables yet.", float64(st.GetMemtableBytes()))
	s.gauge("cairn_store_block_cache_bytes", "Memory of the cache of table blocks.", float64(st.GetBlockCacheBytes()))
	s.counter("cairn_snapshots_sent_total", "States of ranges sent to other nodes.", st.GetSnapshotsSent())
	s.counter("cairn_snapshots_failed_total", "Of those begun, those that were not sent to the end.", st.GetSnapshotsFailed())
	s.counter("cairn_snapshots_installed_total", "States of ranges received and taken in.", st.GetSnapshotsInstalled())
	s.counter("cairn_snapshots_resumed_total", "Of those, the ones that went on after a break.", st.GetSnapshotsResumed())
	const splits = "Splits of ranges that this node had done, by their cause."
	s.counter("cairn_splits_total", splits, st.GetSplitsSize(), "cause", "size")
	s.counter("cairn_splits_total", splits, st.GetSplitsLoad(), "cause", "load")
	s.counter("cairn_splits_total", splits, st.GetSplitsHand(), "cause", "hand")
	s.histogram("cairn_sync_duration_seconds", "How long a sync of the write-ahead log took.", m.Syncs)
	s.histogram("cairn_put_duration_seconds", "How long a write took that this node led, from its arrival to its answer.", m.Puts)
}

// load is what a node tells of itself once a second: what costs something to measure is measured there, and not by a scrape.
func (s *sink) load(l *metapb.NodeLoad) {
	if l == nil {
		return
	}
	s.gauge("cairn_replicas", "Replicas of ranges on this node.", float64(l.Replicas))
	s.gauge("cairn_replicas_bytes", "Bytes of their data.", float64(l.Bytes))
	s.gauge("cairn_requests_per_second", "Requests that the ranges led here are served, forgetting within seconds.", l.RequestsPerSecond)
	s.gauge("cairn_disk_bytes", "Size of the file system that the store is on.", float64(l.DiskBytes))
	s.gauge("cairn_disk_used_bytes", "What of it is used, by whatever.", float64(l.DiskUsed))
	s.gauge("cairn_cpu_ratio", "This process' share of all cores.", float64(l.CpuPermille)/1000)
	s.gauge("cairn_timer_late_seconds", "How late this node's timers were at worst in the last seconds: a busy or paused process.", micros(l.LateMicros))
	s.gauge("cairn_put_p99_seconds", "What the slowest hundredth of writes led here took in the last seconds.", micros(l.PutMicros))
	s.gauge("cairn_put_normal_p99_seconds", "What that is when nothing moves.", micros(l.PutNormalMicros))
	s.gauge("cairn_sync_p99_seconds", "What the slowest hundredth of syncs took in the last seconds.", micros(l.SyncMicros))
	s.gauge("cairn_snapshots_sending", "Snapshots on their way from this node.", float64(l.SnapshotsSending))
	s.gauge("cairn_snapshots_receiving", "Snapshots on their way to this node.", float64(l.SnapshotsReceiving))
	s.gauge("cairn_snapshot_bytes_per_second", "What snapshots move from and to this node.", float64(l.SnapshotBytesPerSecond))
}

func micros(us int64) float64 { return (time.Duration(us) * time.Microsecond).Seconds() }

func (s *sink) cluster(m *Member) {
	states := map[metapb.NodeState]int{}
	for state := range metapb.NodeState_name {
		states[metapb.NodeState(state)] = 0
	}
	cordoned, draining := 0, 0
	for _, n := range m.Nodes {
		states[n.State]++
		cordoned += int(truth(n.Cordoned))
		draining += int(truth(n.Draining))
	}
	delete(states, metapb.NodeState_NODE_STATE_UNSPECIFIED)
	for state, n := range states {
		s.gauge("cairn_nodes", "Nodes of the cluster by state, as this node knows them.", float64(n),
			"state", strings.ToLower(strings.TrimPrefix(state.String(), "NODE_STATE_")))
	}
	s.gauge("cairn_nodes_cordoned", "Nodes that get no new replicas, for somebody asked for that.", float64(cordoned))
	s.gauge("cairn_nodes_draining", "Nodes that lead nothing, for somebody asked for that.", float64(draining))
	if m.Told {
		s.gauge("cairn_nodes_slow", "Nodes that live and are slow, as the leader of sys told last.", float64(m.Slow))
		s.gauge("cairn_health_age_seconds", "Since the leader of sys told this node last how all nodes are.", m.ToldAge.Seconds())
	}
	const beats = "Heartbeats of this node to the leader of sys, by whether they were answered."
	s.counter("cairn_heartbeats_total", beats, m.Answered, "result", "answered")
	s.counter("cairn_heartbeats_total", beats, m.Missed, "result", "unanswered")
	for _, p := range m.Peers {
		s.gauge("cairn_peer_up", "1 if a stream to the node is open; 0 also while there is nothing to send since it broke.", truth(p.Up), "peer", p.Node.String())
		s.gauge("cairn_peer_queued_frames", "Frames that wait to be sent to it.", float64(p.Queued), "peer", p.Node.String())
		s.counter("cairn_peer_sent_frames_total", "Frames sent to it.", p.Sent, "peer", p.Node.String())
		s.counter("cairn_peer_sent_bytes_total", "Bytes sent to it.", p.SentBytes, "peer", p.Node.String())
		s.counter("cairn_peer_dropped_frames_total", "Frames to it that were dropped, for its queue was full or it could not be reached.", p.Dropped, "peer", p.Node.String())
	}
	const decisions = "Decisions of this node on where replicas and leaders are to be, by what became of them."
	s.counter("cairn_placement_decisions_total", decisions, m.Decided, "event", "decided")
	s.counter("cairn_placement_decisions_total", decisions, m.Done, "event", "done")
	s.counter("cairn_placement_decisions_total", decisions, m.GivenUp, "event", "given_up")
	s.counter("cairn_placement_decisions_total", decisions, m.Held, "event", "held")
	s.gauge("cairn_placement_under_way", "Decisions on their way, of the index ranges that this node leads.", float64(m.UnderWay))
	s.gauge("cairn_placement_withheld", "What should be done there and is not: cairn range why tells the reason.", float64(m.Withheld))
	const going = "Operations that go on, by state; told by the node that leads sys, and 0 on others."
	s.gauge("cairn_operations", going, float64(m.OperationsRunning), "state", "running")
	s.gauge("cairn_operations", going, float64(m.OperationsPaused), "state", "paused")
	const ended = "Operations that this node saw end, by outcome."
	s.counter("cairn_operations_ended_total", ended, m.OperationsDone, "state", "done")
	s.counter("cairn_operations_ended_total", ended, m.OperationsFailed, "state", "failed")
}

func (s *sink) watches(m *Member) {
	s.gauge("cairn_watch_streams", "Streams of clients that watch.", float64(m.WatchStreams))
	s.gauge("cairn_watches", "Watches on them.", float64(m.Watches))
	s.gauge("cairn_watch_streams_behind", "Streams whose clients do not read as fast as there are events: they are sent more once they have read.", float64(m.WatchesBehind))
	s.counter("cairn_watch_events_total", "Events for watches, counted for each that gets one.", m.WatchEvents)
	s.counter("cairn_watch_responses_total", "Responses that they came in, before those for one watch were put together.", m.WatchResponses)
	s.counter("cairn_watch_pulls_total", "Pages of changes that were read for watches, or waited for: of the past, after gaps, and of ranges that this node has no replica of.", m.WatchPulls)
	s.counter("cairn_watch_closes_total", "Times that a quiet range was asked to raise its revision, for watches that span it and a busy one.", m.WatchCloses)
	s.counter("cairn_watch_retries_total", "Questions of the watches that failed and were asked again.", m.WatchFailed)
}

// etcd is what dashboards and alerts written for etcd look at, as far as it can be told truthfully here: all is of the range that
// etcd's clients see, or of the store as a whole.
func (s *sink) etcd(m *Member) {
	s.gauge("etcd_server_has_leader", "1 if this node knows a leader of the default keyspace, or holds no replica of it and need not know.", truth(m.Leader))
	s.gauge("etcd_server_is_leader", "1 if this node leads the default keyspace.", truth(m.Leads))
	s.counter("etcd_server_leader_changes_seen_total", "Leaders of the default keyspace that this node saw, after the first.", m.LeaderChanges)
	s.histogram("etcd_disk_wal_fsync_duration_seconds", "How long a sync of the write-ahead log took; the same as cairn_sync_duration_seconds.", m.Syncs)
	s.gauge("etcd_debugging_mvcc_watcher_total", "Watches; the same as cairn_watches.", float64(m.Watches))
	s.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches; the same as cairn_watch_streams.", float64(m.WatchStreams))
	s.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the store on disk; the same as cairn_store_bytes.", float64(m.Store.GetDiskBytes()))
}
