package observe

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/node/latency"
)

// Nothing that a test started runs on after it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func reading() *Reading {
	var syncs latency.Histogram
	for _, d := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond, time.Minute} {
		syncs.Record(d)
	}
	return &Reading{
		Version: "0.1.0", EtcdVersion: "3.6.0", Serving: true, Healthy: 5, Unhealthy: 1,
		Calls: []Call{
			{Service: "etcdserverpb.KV", Method: "Put", Kind: "unary", Started: 9, Ended: map[codes.Code]uint64{codes.OK: 7, codes.Unavailable: 2}},
			{Service: "etcdserverpb.Watch", Method: "Watch", Kind: "bidi_stream", Started: 1},
		},
		Member: &Member{
			Node: 1, Store: &clusterpb.StoreMetrics{Syncs: 3, Leaders: 4, LeadersResting: 2, LeasesLost: 6, SplitsSize: 8, SplitsHand: 1},
			Load:   &metapb.NodeLoad{Replicas: 50000, CpuPermille: 250, PutMicros: 1500, LateMicros: 20},
			Leader: true, LeaderChanges: 2, Syncs: syncs.Totals(),
			Nodes: []*metapb.NodeRecord{{State: metapb.NodeState_NODE_STATE_ACTIVE}, {State: metapb.NodeState_NODE_STATE_ACTIVE, Cordoned: true},
				{State: metapb.NodeState_NODE_STATE_FAILED, Draining: true}},
			ClientLeases: 31, LeasesExpired: 32, LeasesKept: 33,
			Told: true, Slow: 1, ToldAge: 1500 * time.Millisecond, Answered: 10, Missed: 3,
			Peers:   []Peer{{Node: 2, Up: true, Sent: 11, SentBytes: 12, Queued: 1}, {Node: 3, Dropped: 4}},
			Decided: 21, Done: 20, GivenUp: 1, UnderWay: 2, Withheld: 1, OperationsRunning: 1, OperationsDone: 2,
			WatchStreams: 12, Watches: 34, WatchesBehind: 1, WatchEvents: 5678, WatchPulls: 9,
		},
	}
}

func scrape(t *testing.T, read func() *Reading) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(read, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestSeries(t *testing.T) {
	said := scrape(t, reading)
	for _, line := range []string{
		`cairn_build_info{version="0.1.0"} 1`,
		`cairn_node_serving 1`,
		`grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1`,
		`cairn_ranges_led 4`, `cairn_ranges_led_resting 2`, `cairn_leases_lost_total 6`, `cairn_splits_total{cause="size"} 8`,
		`cairn_client_leases 31`, `cairn_client_leases_expired_total 32`, `cairn_client_leases_kept_alive_total 33`,
		`cairn_replicas 50000`, `cairn_cpu_ratio 0.25`, `cairn_put_p99_seconds 0.0015`,
		`cairn_nodes{state="active"} 2`, `cairn_nodes{state="failed"} 1`, `cairn_nodes{state="suspect"} 0`,
		`cairn_nodes_cordoned 1`, `cairn_nodes_draining 1`, `cairn_nodes_slow 1`, `cairn_health_age_seconds 1.5`,
		`cairn_heartbeats_total{result="unanswered"} 3`, `cairn_peer_up{peer="n2"} 1`, `cairn_peer_dropped_frames_total{peer="n3"} 4`,
		`cairn_placement_decisions_total{event="given_up"} 1`, `cairn_placement_withheld 1`, `cairn_operations{state="running"} 1`,
		`cairn_sync_duration_seconds_bucket{le="0.000128"} 1`, `cairn_sync_duration_seconds_bucket{le="33.554432"} 2`,
		`cairn_sync_duration_seconds_count 3`, `cairn_sync_duration_seconds_sum 60.0031`,
		`cairn_watch_streams 12`, `cairn_watches 34`, `cairn_watch_streams_behind 1`, `cairn_watch_events_total 5678`, `cairn_watch_pulls_total 9`,
		`etcd_server_has_leader 1`, `etcd_server_leader_changes_seen_total 2`, `etcd_server_health_success 5`,
	} {
		if !strings.Contains(said, "\n"+line+"\n") {
			t.Errorf("not told: %s", line)
		}
	}
	for _, family := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(said, "\n"+family+" ") {
			t.Errorf("not told: %s", family)
		}
	}
}

// Before it is a member a node tells of itself alone, and no zeros that would look like figures.
func TestSeriesOfAnOutsider(t *testing.T) {
	said := scrape(t, func() *Reading { return &Reading{Version: "0.1.0"} })
	if !strings.Contains(said, "\ncairn_node_member 0\n") || strings.Contains(said, "cairn_ranges_led") || strings.Contains(said, "etcd_server_has_leader") {
		t.Error(said)
	}
}

// Names, units and helps are as Prometheus wants them, but for those that etcd chose.
func TestLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(&collector{reading})
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "etcd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// The number of series does not depend on the number of ranges: no label names one.
func TestNoSeriesOfARange(t *testing.T) {
	labels := regexp.MustCompile(`[{,]([a-z_]+)="`)
	known := "version server_version grpc_type grpc_service grpc_method grpc_code cause state result peer event le quantile"
	for _, m := range labels.FindAllStringSubmatch(scrape(t, reading), -1) {
		if !strings.Contains(" "+known+" ", " "+m[1]+" ") {
			t.Errorf("the label %s: is it bounded?", m[1])
		}
	}
}

func BenchmarkScrape(b *testing.B) {
	h := Handler(reading, slog.New(slog.DiscardHandler))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		_, _ = io.Copy(io.Discard, w.Body)
	}
}
