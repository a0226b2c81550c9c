// Package web is what a node answers over HTTP, in etcd's forms: its version and health, metrics, and etcd's JSON gateway.
//
// It holds nothing of the node. Whatever needs the node is asked through a connection to the node's own gRPC server, so that all rules
// that hold for clients hold here: who may be served, which keyspace is meant, how long a request may take.
package web

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/version"
)

// Config is what the answers are made of.
type Config struct {
	// Conn leads to this node's gRPC server.
	Conn *grpc.ClientConn
	// Version is that of etcd whose API this is.
	Version string
	// Member says whether the node is part of a cluster.
	Member func() bool
	// Live says what is wrong with the process itself, such as that its store cannot be read; nil: nothing is.
	Live func() error
	// Keyspace is what the clients mean who name none, by the port that they came to; empty: default.
	Keyspace func(port int) string
	// Metrics answers /metrics.
	Metrics http.Handler
	Logger  *slog.Logger
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	if c.Conn == nil || c.Version == "" || c.Member == nil || c.Live == nil || c.Keyspace == nil || c.Metrics == nil || c.Logger == nil {
		return errors.New("web: all of the configuration is needed")
	}
	return nil
}

// Handler answers requests.
type Handler struct {
	http.Handler
	healthy, unhealthy atomic.Uint64
}

// New makes a handler. Pages of other origins may not use it through a browser: there is no authentication to stop them, and the one
// in the browser may reach what they cannot. Programs name no origin and are not concerned.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	gateway, err := newGateway(&cfg)
	if err != nil {
		return nil, err
	}
	h := &Handler{}
	mux := http.NewServeMux()
	mux.Handle("/v3/", gateway)
	mux.HandleFunc("/version", get(cfg.version))
	mux.Handle("/metrics", cfg.Metrics)
	k := &checker{cfg: &cfg}
	mux.HandleFunc("/health", get(h.health(k)))
	k.install(mux, "livez", k.livez())
	k.install(mux, "readyz", k.readyz())
	h.Handler = http.NewCrossOriginProtection().Handler(formerPaths(mux))
	return h, nil
}

// HealthChecks is how often /health was asked for, by what it said.
func (h *Handler) HealthChecks() (healthy, unhealthy uint64) {
	return h.healthy.Load(), h.unhealthy.Load()
}

// formerPaths lets clients of etcd 3.3 in.
func formerPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
			r.URL.Path = "/v3/" + rest
		}
		next.ServeHTTP(w, r)
	})
}

// get answers GET alone, as etcd does on its own pages.
func get(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		f(w, r)
	}
}

// version says which etcd clients may take this for. The cluster has one once there is a cluster.
func (c *Config) version(w http.ResponseWriter, _ *http.Request) {
	v := version.Versions{Server: c.Version, Cluster: "not_decided", Storage: "unknown"}
	if c.Member() {
		v.Cluster, v.Storage = version.Cluster(c.Version)+".0", version.Cluster(c.Version)+".0"
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, &v)
}

// writeJSON writes what can be marshalled. If the client is gone nobody is left to be told.
func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}
