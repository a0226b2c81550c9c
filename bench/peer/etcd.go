package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd is etcd's own server at Path, with its defaults but for what Extra says.
type Etcd struct {
	Path    string
	Profile bool     // serve profiles
	Extra   []string // further flags
}

// Binary implements System.
func (e Etcd) Binary() string { return e.Path }

// Args implements System: names, folders and addresses, and nothing that changes how it works.
func (e Etcd) Args(l Layout, i int) []string {
	name := func(i int) string { return fmt.Sprintf("n%d", i+1) }
	url := func(address string) string { return "http://" + address }
	var members string
	for m := range Nodes {
		if m > 0 {
			members += ","
		}
		members += name(m) + "=" + url(l.Peer[m])
	}
	args := []string{
		"--name", name(i), "--data-dir", l.Store[i],
		"--listen-client-urls", url(l.Client[i]), "--advertise-client-urls", url(l.Client[i]),
		"--listen-peer-urls", url(l.Peer[i]), "--initial-advertise-peer-urls", url(l.Peer[i]),
		"--initial-cluster", members, "--initial-cluster-state", "new",
	}
	if e.Profile {
		args = append(args, "--enable-pprof")
	}
	return append(args, e.Extra...)
}

// ProfileURL implements System.
func (e Etcd) ProfileURL(l Layout, i int) string {
	return "http://" + l.Client[i] + "/debug/pprof/profile"
}

// Ready implements System.
func (e Etcd) Ready(ctx context.Context, l Layout) error { return readEverywhere(ctx, l) }

// Syncs implements System. A commit of etcd's backend (bbolt) syncs twice: the pages, then the page that makes them
// valid.
func (e Etcd) Syncs(ctx context.Context, l Layout, i int) (float64, bool, error) {
	values, err := scrape(ctx, "http://"+l.Client[i]+"/metrics")
	if err != nil {
		return 0, false, err
	}
	log, inLog := values["etcd_disk_wal_fsync_duration_seconds_count"]
	commits, inBackend := values["etcd_disk_backend_commit_duration_seconds_count"]
	if !inLog || !inBackend {
		return 0, false, fmt.Errorf("etcd's metrics do not count its syncs")
	}
	return log + 2*commits, true, nil
}

// Leader implements System.
func (e Etcd) Leader(ctx context.Context, l Layout) (int, error) {
	for i, endpoint := range l.Client {
		leads, err := leadsAt(ctx, endpoint)
		if err == nil && leads {
			return i, nil
		}
	}
	return 0, errors.New("no node leads")
}

func leadsAt(ctx context.Context, endpoint string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Context: ctx, Logger: zap.NewNop()})
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // the answer has come
	st, err := conn.Status(ctx, endpoint)
	if err != nil {
		return false, err
	}
	return st.Leader == st.Header.MemberId, nil
}

// readTimeout bounds one question to a server that is coming up.
const readTimeout = 2 * time.Second

// readEverywhere succeeds if every endpoint answers a linearizable read.
func readEverywhere(ctx context.Context, l Layout) error {
	for _, endpoint := range l.Client {
		if err := readOnce(ctx, endpoint); err != nil {
			return fmt.Errorf("%s: %w", endpoint, err)
		}
	}
	return nil
}

func readOnce(ctx context.Context, endpoint string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Context: ctx, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the answer has come
	_, err = conn.Get(ctx, "ready")
	return err
}
