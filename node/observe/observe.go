// Package observe tells Prometheus how a node is. It is the only one that knows Prometheus: all others keep plain counters, and a
// Reading of them is taken at each scrape. Nothing in a reading grows with the number of ranges, nor does what it costs to take.
package observe

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/latency"
)

// Reading is what a node's counters say at a moment. Before the node is part of a cluster it has no Member.
type Reading struct {
	Version, EtcdVersion string
	Serving              bool // clients
	Calls                []Call
	Healthy, Unhealthy   uint64 // answers of /health
	Member               *Member
}

// Call is what came of the calls of one gRPC method.
type Call struct {
	Service, Method, Kind string
	Started               uint64
	Ended                 map[codes.Code]uint64
}

// Member is what the node counts as a part of a cluster.
type Member struct {
	Node          base.NodeID
	Store         *clusterpb.StoreMetrics
	Load          *metapb.NodeLoad // as it told the leader of `sys` last; nil: it has not yet
	Leader        bool             // one is known here of the range that etcd's clients see
	LeaderChanges uint64           // of that range
	Leads         bool             // this node leads it
	Syncs, Puts   latency.Totals

	ClientLeases              int    // of clients, that live in ranges led here
	LeasesExpired, LeasesKept uint64 // here since the start

	Nodes    []*metapb.NodeRecord // as this node knows them
	Slow     int                  // nodes that are, as the leader of `sys` told last
	ToldAge  time.Duration        // since it told
	Told     bool                 // it has told at all
	Answered uint64               // heartbeats of this node
	Missed   uint64
	Peers    []Peer

	Decided, Done, GivenUp, Held uint64 // decisions of this node
	UnderWay, Withheld           int

	OperationsRunning, OperationsPaused int
	OperationsDone, OperationsFailed    uint64

	WatchStreams, Watches, WatchesBehind int // streams of clients; watches on them; streams that are behind
	WatchEvents, WatchResponses          uint64
	WatchPulls, WatchCloses, WatchFailed uint64
}

// Peer is another node with which this one keeps a connection.
type Peer struct {
	Node                             base.NodeID
	Up                               bool
	Queued, Sent, SentBytes, Dropped uint64
}

// Handler answers scrapes. read is called for each, from any goroutine.
func Handler(read func() *Reading, log *slog.Logger) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{read})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            errorLog{log},
		MaxRequestsInFlight: base.ScrapesInFlight,
	})
}

// errorLog is what promhttp says when a scrape fails.
type errorLog struct{ *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.Warn("a scrape failed", "error", fmt.Sprint(v...)) }

// collector reads the node at each scrape.
type collector struct{ read func() *Reading }

// Describe implements prometheus.Collector. It says nothing: which series there are depends on what the node is.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := c.read()
	s := &sink{ch: ch}
	s.node(r)
	s.calls(r.Calls)
	if m := r.Member; m != nil {
		s.store(m)
		s.load(m.Load)
		s.cluster(m)
		s.watches(m)
		s.etcd(m)
	}
}

// sink sends what is read.
type sink struct{ ch chan<- prometheus.Metric }

// labels are pairs of name and value.
func (s *sink) send(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
	names, values := make([]string, 0, len(labels)/2), make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
}

func (s *sink) gauge(name, help string, value float64, labels ...string) {
	s.send(prometheus.GaugeValue, name, help, value, labels...)
}

func (s *sink) counter(name, help string, value uint64, labels ...string) {
	s.send(prometheus.CounterValue, name, help, float64(value), labels...)
}

func (s *sink) histogram(name, help string, t latency.Totals) {
	below := make(map[float64]uint64, len(t.Below))
	for d, n := range t.Below {
		below[d.Seconds()] = n
	}
	s.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, nil, nil), t.Count, t.Sum.Seconds(), below)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
