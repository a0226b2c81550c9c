package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file answers whoever watches over the process: /health in the form of etcd before 3.5.11, /livez and /readyz in that since, whose
// checks can be asked for one by one. All read the way that clients do.
//
// /livez is about the process: it fails when a restart could help, and not because other nodes are down, nor while the node waits for
// a cluster. /readyz is about whom clients may be sent to.

// checker does the checks.
type checker struct{ cfg *Config }

// check is one of them, under etcd's name where etcd has it.
type check struct {
	name string
	run  func(context.Context) error
}

func (k *checker) livez() []check {
	return []check{{"serializable_read", func(context.Context) error { return k.cfg.Live() }}}
}

func (k *checker) readyz() []check {
	return []check{
		{"data_corruption", func(ctx context.Context) error { return k.alarm(ctx, pb.AlarmType_CORRUPT) }},
		{"serializable_read", func(ctx context.Context) error { return k.read(ctx, true) }},
		{"linearizable_read", func(ctx context.Context) error { return k.read(ctx, false) }},
		{"non_learner", k.nonLearner},
		{"serving", k.serving}, // Cairn's own
	}
}

// read reads a key, of the default keyspace, whether or not it exists.
func (k *checker) read(ctx context.Context, serializable bool) error {
	_, err := pb.NewKVClient(k.cfg.Conn).Range(ctx, &pb.RangeRequest{Key: []byte("health"), KeysOnly: true, Serializable: serializable})
	return err
}

// alarms lists the cluster's alarms.
func (k *checker) alarms(ctx context.Context) ([]*pb.AlarmMember, error) {
	resp, err := pb.NewMaintenanceClient(k.cfg.Conn).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	return resp.GetAlarms(), err
}

func (k *checker) alarm(ctx context.Context, is pb.AlarmType) error {
	alarms, err := k.alarms(ctx)
	for _, a := range alarms {
		if a.Alarm == is {
			return fmt.Errorf("alarm activated: %s", is)
		}
	}
	return err
}

// nonLearner is about the list of members, from which clients learn where to go.
func (k *checker) nonLearner(ctx context.Context) error {
	resp, err := pb.NewClusterClient(k.cfg.Conn).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return err
	}
	for _, m := range resp.Members {
		if m.ID == resp.Header.GetMemberId() {
			if m.IsLearner {
				return errors.New("not supported for learner")
			}
			return nil
		}
	}
	return errors.New("this node is not among the members of the cluster")
}

// serving is what gRPC's health service says too: not before the cluster has taken note of the node, nor once it begins to stop.
func (k *checker) serving(ctx context.Context) error {
	resp, err := healthpb.NewHealthClient(k.cfg.Conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err == nil && resp.Status != healthpb.HealthCheckResponse_SERVING {
		err = errors.New("this node serves no clients now: it has not joined yet, or it stops")
	}
	return err
}

// install serves the checks under a path, all together and one by one.
func (k *checker) install(mux *http.ServeMux, path string, checks []check) {
	mux.HandleFunc("/"+path, get(func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"] // what there is no check for is no error: another version may have it
		k.answer(w, r, path, slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return slices.Contains(excluded, c.name) }))
	}))
	for _, c := range checks {
		mux.HandleFunc("/"+path+"/"+c.name, get(func(w http.ResponseWriter, r *http.Request) { k.answer(w, r, path, []check{c}) }))
	}
}

// answer runs checks. What failed is told always, and all of it to whoever asks for that.
func (k *checker) answer(w http.ResponseWriter, r *http.Request, path string, checks []check) {
	var said strings.Builder
	failed := false
	for _, c := range checks {
		if err := c.run(r.Context()); err != nil {
			failed = true
			fmt.Fprintf(&said, "[-]%s failed: %v\n", c.name, reason(err))
		} else {
			fmt.Fprintf(&said, "[+]%s ok\n", c.name)
		}
	}
	if failed {
		k.cfg.Logger.Info("a health check failed", "path", path, "checks", strings.TrimSpace(said.String()))
		http.Error(w, said.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		_, _ = fmt.Fprint(w, said.String()) // a client that is gone need not be told
	}
	_, _ = fmt.Fprint(w, "ok\n")
}

// reason is an error's text without gRPC's frame.
func reason(err error) string { return status.Convert(err).Message() }

// verdict is what /health answers: Health is "true" or "false".
type verdict struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// health answers /health: an alarm that is not excluded, no leader, or a failed read make it false.
func (h *Handler) health(k *checker) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := k.verdict(r.Context(), r.URL.Query()["exclude"], r.URL.Query().Get("serializable") == "true")
		if v.Health == "true" {
			h.healthy.Add(1)
			writeJSON(w, v)
			return
		}
		h.unhealthy.Add(1)
		k.cfg.Logger.Info("a health check failed", "path", "health", "reason", v.Reason)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8") // as etcd has it
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusServiceUnavailable)
		writeJSON(w, v)
		_, _ = fmt.Fprintln(w)
	}
}

func (k *checker) verdict(ctx context.Context, excluded []string, serializable bool) verdict {
	alarms, err := k.alarms(ctx)
	for _, a := range alarms {
		if !slices.Contains(excluded, a.Alarm.String()) {
			return verdict{"false", "ALARM " + a.Alarm.String()}
		}
	}
	if err == nil {
		err = k.read(ctx, serializable)
	}
	switch {
	case err == nil:
		return verdict{Health: "true"}
	case !serializable && reason(err) == rpctypes.ErrNoLeader.Error():
		return verdict{"false", "RAFT NO LEADER"}
	}
	return verdict{"false", "RANGE ERROR:" + reason(err)}
}
