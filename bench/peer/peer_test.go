package peer

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestScrape(t *testing.T) {
	const page = "# HELP a_count of something\n# TYPE a_count counter\na_count 12\nb{le=\"1\"} 3\nc_total 1.5e+03 1700000000\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(page)) // the test sees what is missing
	}))
	defer server.Close()
	values, err := scrape(t.Context(), server.URL+"/metrics")
	if want := map[string]float64{"a_count": 12, "c_total": 1500}; err != nil || !maps.Equal(values, want) {
		t.Errorf("the values are %v, not %v; error %v", values, want, err)
	}
	if _, err := scrape(t.Context(), server.URL+"/elsewhere"); err == nil {
		t.Error("a page that is not there was read")
	}
	if _, err := parse(strings.NewReader("a_count many\n")); err == nil {
		t.Error("a value that is no number was read")
	}
}

func TestAllVoters(t *testing.T) {
	const voter, learner = `{"role":"voter"}`, `{"role":"learner"}`
	full := `{"keyspace":"root","replicas":[` + voter + `,` + voter + `,` + voter + `]}`
	for status, ok := range map[string]bool{
		`{"ranges":[` + full + `,` + full + `]}`: true,
		`{"ranges":[` + full + `,{"keyspace":"sys","replicas":[` + voter + `,` + voter + `,` + learner + `]}]}`: false,
		`{"ranges":[{"keyspace":"sys","replicas":[` + voter + `]}]}`:                                            false,
		`{"ranges":[]}`: false,
		`{}`:            false,
		`not ready`:     false,
	} {
		if err := allVoters([]byte(status)); (err == nil) != ok {
			t.Errorf("%s: error %v", status, err)
		}
	}
}

func TestEtcdArgs(t *testing.T) {
	l, err := newLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range Nodes {
		seen[l.Client[i]], seen[l.Peer[i]], seen[l.Store[i]] = true, true, true
		args := strings.Join(Etcd{}.Args(l, i), " ")
		for m := range Nodes {
			if !strings.Contains(args, "http://"+l.Peer[m]) {
				t.Errorf("node %d is not told of %s: %s", i, l.Peer[m], args)
			}
		}
		if !strings.Contains(args, "--data-dir "+l.Store[i]) {
			t.Errorf("node %d has no store of its own: %s", i, args)
		}
	}
	if len(seen) != 3*Nodes {
		t.Errorf("addresses or folders are shared: %+v", l)
	}
}

// program is a system that is any program.
type program struct {
	path    string
	args    []string
	ready   error
	profile []string
}

func (p program) Binary() string            { return p.path }
func (p program) Args(Layout, int) []string { return p.args }

func (p program) Ready(context.Context, Layout) error { return p.ready }

func (program) Leader(context.Context, Layout) (int, error) { return 0, nil }

func (p program) ProfileURL(_ Layout, i int) string { return p.profile[i%len(p.profile)] }

func (p program) Syncs(_ context.Context, _ Layout, i int) (float64, bool, error) {
	return float64(i + 1), true, nil
}

func TestCluster(t *testing.T) {
	c, err := Start(t.Context(), "sleepers", program{path: "sleep", args: []string{"60"}}, filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	usage, err := c.Usage()
	if err != nil || usage.RSS == 0 {
		t.Errorf("usage %+v, error %v", usage, err)
	}
	if n, ok, err := c.Syncs(t.Context()); n != 1+2+3 || !ok || err != nil {
		t.Errorf("syncs %v, known %v, error %v", n, ok, err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if err := c.Check(); err == nil {
		t.Error("a stopped cluster is said to run")
	}
	if _, err := c.Usage(); err == nil {
		t.Error("a stopped cluster has a usage")
	}
}

func TestProfile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/profile" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(r.URL.RawQuery)) // the test sees what is missing
	}))
	defer server.Close()
	good, prefix := server.URL+"/profile", filepath.Join(t.TempDir(), "p")
	c := &Cluster{system: program{profile: []string{good}}}
	if err := c.Profile(t.Context(), 3*time.Second, prefix); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"1", "2", "3"} {
		if data, err := os.ReadFile(prefix + "-n" + n + ".pprof"); err != nil || string(data) != "seconds=3" {
			t.Errorf("node %s: %q, error %v", n, data, err)
		}
	}
	c.system = program{profile: []string{good, server.URL + "/elsewhere"}}
	if err := c.Profile(t.Context(), time.Second, prefix); err == nil {
		t.Error("a node that serves no profile gave one")
	}
}

func TestClusterThatDies(t *testing.T) {
	_, err := Start(t.Context(), "dead", program{path: "false", ready: errors.New("no answer")}, filepath.Join(t.TempDir(), "c"))
	if err == nil || !strings.Contains(err.Error(), "has ended (exit status 1)") || !strings.Contains(err.Error(), ".log") {
		t.Errorf("the error is %v", err)
	}
}
