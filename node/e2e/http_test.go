package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What programs without gRPC see of real nodes: curl, probes and Prometheus, on the port of etcd's clients.

var web = &http.Client{Timeout: 20 * time.Second}

// page is what a node answers to GET.
func page(p *proc, path string) (code int, said string, err error) {
	resp, err := web.Get("http://" + p.addr + path)
	if err != nil {
		return 0, "", err
	}
	return whole(resp)
}

// waitReady returns when clients may be sent to every node: one that has just started serves nobody until the cluster has noted it.
func (c *cluster) waitReady() {
	c.t.Helper()
	c.eventually(60*time.Second, func() error {
		for _, q := range c.procs {
			if code, said, err := page(q, "/readyz"); err != nil || code != 200 {
				return fmt.Errorf("readyz of %s: %d %s (%v)", q.name, code, said, err)
			}
		}
		return nil
	})
}

func whole(resp *http.Response) (int, string, error) {
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// call posts JSON to the gateway; header is a name and a value.
func call(addr, path, body string, header ...string) (int, string, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, "", err
	}
	return whole(resp)
}

// whoever matches what differs from cluster to cluster.
var whoever = regexp.MustCompile(`"(cluster_id|member_id|raft_term|raftTerm|raftIndex|raftAppliedIndex|leader|ID|dbSize|dbSizeInUse)":"[0-9]+"`)

// wantJSON compares what the gateway answers, without ids, terms and blanks.
func wantJSON(t *testing.T, addr, path, body string, wantCode int, want string) {
	t.Helper()
	code, said, err := call(addr, path, body)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(said)); err != nil {
		t.Errorf("%s answers %q: %v", path, said, err)
		return
	}
	if got := whoever.ReplaceAllString(compact.String(), `"$1":"N"`); code != wantCode || got != want {
		t.Errorf("%s %s:\n%d %s, want\n%d %s", path, body, code, got, wantCode, want)
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// The answers of etcd 3.7.3 to the same requests, but for its version, quota and downgrade: field names, integers as strings, base64,
// what is left out, HTTP's codes, the texts of errors.
func TestGatewayAnswersAsEtcd(t *testing.T) {
	c := startCluster(t, 1)
	c.waitReady()
	at := c.procs[0].addr
	foo := `"key":"` + b64("foo") + `"`
	header := func(rev int) string {
		return fmt.Sprintf(`"header":{"cluster_id":"N","member_id":"N","revision":"%d","raft_term":"N"}`, rev)
	}
	const kv = `{"key":"Zm9v","create_revision":"2","mod_revision":"3","version":"2","value":"YmF6"}`
	wantJSON(t, at, "/v3/kv/put", `{`+foo+`,"value":"YmFy"}`, 200, `{`+header(2)+`}`)
	wantJSON(t, at, "/v3/kv/put", `{`+foo+`,"value":"YmF6","prev_kv":true}`, 200,
		`{`+header(3)+`,"prev_kv":{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}}`)
	wantJSON(t, at, "/v3/kv/range", `{`+foo+`}`, 200, `{`+header(3)+`,"kvs":[`+kv+`],"count":"1"}`)
	wantJSON(t, at, "/v3/kv/range", `{`+foo+`,"range_end":"AA==","limit":"1","sort_order":"DESCEND"}`, 200, `{`+header(3)+`,"kvs":[`+kv+`],"count":"1"}`)
	wantJSON(t, at, "/v3/kv/range", `{`+foo+`,"revision":99}`, 400, `{"code":11,"message":"etcdserver: mvcc: required revision is a future revision"}`)
	wantJSON(t, at, "/v3/kv/range", `{}`, 400, `{"code":3,"message":"etcdserver: key is not provided"}`)
	wantJSON(t, at, "/v3/kv/range", `{bad`, 400, `{"code":3,"message":"invalid character 'b' looking for beginning of object key string"}`)
	wantJSON(t, at, "/v3/kv/txn", `{"compare":[{"target":"VALUE",`+foo+`,"value":"YmF6"}],"success":[{"request_range":{`+foo+`}},{"request_put":{"key":"azI=","value":"djI="}}]}`, 200,
		`{`+header(4)+`,"succeeded":true,"responses":[{"response_range":{"header":{"revision":"3"},"kvs":[`+kv+`],"count":"1"}},{"response_put":{"header":{"revision":"4"}}}]}`)
	wantJSON(t, at, "/v3/kv/deleterange", `{"key":"azI=","prev_kv":true}`, 200,
		`{`+header(5)+`,"deleted":"1","prev_kvs":[{"key":"azI=","create_revision":"4","mod_revision":"4","version":"1","value":"djI="}]}`)
	wantJSON(t, at, "/v3/kv/compaction", `{"revision":"3"}`, 200, `{`+header(5)+`}`)
	wantJSON(t, at, "/v3/kv/range", `{`+foo+`,"revision":2}`, 400, `{"code":11,"message":"etcdserver: mvcc: required revision has been compacted"}`)
	wantJSON(t, at, "/v3beta/kv/range", `{`+foo+`,"count_only":true}`, 200, `{`+header(5)+`,"count":"1"}`)
	wantJSON(t, at, "/v3/cluster/member/list", `{}`, 200,
		`{"header":{"cluster_id":"N","member_id":"N","raft_term":"N"},"members":[{"ID":"N","name":"n1","peerURLs":["http://`+at+`"],"clientURLs":["http://`+at+`"]}]}`)
	wantJSON(t, at, "/v3/no/such", `{}`, 404, `{"code":5,"message":"Not Found"}`)
	code, said, err := call(at, "/v3/maintenance/status", `{}`)
	for _, part := range []string{`"version":"3.6.0"`, `"revision":"5"`, `"leader":"1"`, `"raftAppliedIndex":"`} {
		if err != nil || code != 200 || !strings.Contains(strings.ReplaceAll(said, " ", ""), part) {
			t.Errorf("status: %d %s (%v), without %s", code, said, err, part)
		}
	}
}

// etcd's Go client, curl, probes and a scraper on one port at once, while others open connections and say nothing.
func TestHTTPBesideGRPC(t *testing.T) {
	shards := freeAddrs(t, 1)[0]
	c := startCluster(t, 1, "--listen-keyspace", "shards="+shards)
	c.waitReady()
	p := c.procs[0]
	for range 100 {
		silent, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl := c.client()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				over, other := fmt.Sprintf("grpc/%d/%d", w, i), fmt.Sprintf("http/%d/%d", w, i)
				if _, err := cl.Put(ctx, over, "v"); err != nil {
					t.Error(err)
				}
				if code, said, err := call(p.addr, "/v3/kv/range", `{"key":"`+b64(over)+`"}`); err != nil || code != 200 || !strings.Contains(said, b64(over)) {
					t.Errorf("%s over HTTP: %d %s (%v)", over, code, said, err)
				}
				if code, said, err := call(p.addr, "/v3/kv/put", `{"key":"`+b64(other)+`","value":"dg=="}`); err != nil || code != 200 {
					t.Errorf("put over HTTP: %d %s (%v)", code, said, err)
				}
				if r, err := cl.Get(ctx, other); err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "v" {
					t.Errorf("%s over gRPC: %v (%v)", other, r, err)
				}
				for _, path := range []string{"/readyz", "/health", "/metrics"} {
					if code, said, err := page(p, path); err != nil || code != 200 {
						t.Errorf("%s: %d %s (%v)", path, code, said, err)
					}
				}
			}
		})
	}
	wg.Wait()
	m := metrics(t, p)
	for series, want := range map[string]float64{
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`: 200,
		"etcd_server_health_success": 100, "cairn_node_serving": 1, `cairn_nodes{state="active"}`: 1, "etcd_server_has_leader": 1, "etcd_server_is_leader": 1,
	} {
		if m[series] != want {
			t.Errorf("%s is %v, want %v", series, m[series], want)
		}
	}
	if m["cairn_put_duration_seconds_count"] < 200 || m["cairn_put_duration_seconds_sum"] <= 0 || m["cairn_store_syncs_total"] == 0 || m["cairn_ranges_led"] < 4 {
		t.Errorf("%v puts in %v s, %v syncs, %v ranges led", m["cairn_put_duration_seconds_count"], m["cairn_put_duration_seconds_sum"], m["cairn_store_syncs_total"], m["cairn_ranges_led"])
	}
	keyspaceOverHTTP(t, p, shards)
	if code := p.term(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// A request means the keyspace that its header names, or to which its address is bound.
func keyspaceOverHTTP(t *testing.T, p *proc, bound string) {
	t.Helper()
	if _, err := run(10*time.Second, "keyspace", "create", "shards", "--sharded", "--host", p.addr); err != nil {
		t.Fatal(err)
	}
	if code, said, err := call(p.addr, "/v3/kv/put", `{"key":"aw==","value":"dg=="}`, "Grpc-Metadata-Cairn-Keyspace", "shards"); err != nil || code != 200 {
		t.Fatalf("put: %d %s (%v)", code, said, err)
	}
	for addr, has := range map[string]bool{p.addr: false, bound: true} {
		code, said, err := call(addr, "/v3/kv/range", `{"key":"aw=="}`)
		if err != nil || code != 200 || strings.Contains(said, `"kvs"`) != has {
			t.Errorf("%s: %d %s (%v), has it: %v", addr, code, said, err, has)
		}
	}
	if code, said, err := call(p.addr, "/v3/kv/range", `{"key":"aw=="}`, "Grpc-Metadata-Cairn-Keyspace", "none"); err != nil || code == 200 {
		t.Errorf("a keyspace that is not there: %d %s (%v)", code, said, err)
	}
}

// metrics is what a scrape says, by series.
func metrics(t *testing.T, p *proc) map[string]float64 {
	t.Helper()
	code, said, err := page(p, "/metrics")
	if err != nil || code != 200 {
		t.Fatalf("metrics: %d %s (%v)", code, said, err)
	}
	out := make(map[string]float64)
	for _, line := range strings.Split(said, "\n") {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if out[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	return out
}

// Without a majority a node is alive and not ready; it is not to be killed for what others lack. When the others are back it is ready.
func TestProbesWithoutMajority(t *testing.T) {
	c := startCluster(t, 3)
	c.waitReady()
	p := c.procs[0]
	for _, q := range c.procs {
		for _, path := range []string{"/livez", "/readyz", "/health"} {
			if code, said, err := page(q, path); err != nil || code != 200 {
				t.Fatalf("%s of %s: %d %s (%v)", path, q.name, code, said, err)
			}
		}
	}
	var decided, done, led, operations float64
	for _, q := range c.procs {
		m := metrics(t, q)
		decided += m[`cairn_placement_decisions_total{event="decided"}`]
		done += m[`cairn_placement_decisions_total{event="done"}`]
		led += m["cairn_ranges_led"]
		operations += m[`cairn_operations{state="running"}`]
		if m[`cairn_nodes{state="active"}`] != 3 || m[`cairn_heartbeats_total{result="answered"}`] == 0 {
			t.Errorf("%s: nodes %v, heartbeats %v", q.name, m[`cairn_nodes{state="active"}`], m[`cairn_heartbeats_total{result="answered"}`])
		}
	}
	// The four ranges began on one node: each got its other replicas by decisions, and has one leader.
	if decided < 4 || done == 0 || done > decided || led != 4 || operations != 0 {
		t.Errorf("%v decisions, %v of them done; %v ranges led; %v operations", decided, done, led, operations)
	}
	c.procs[1].kill()
	c.procs[2].kill()
	c.eventually(30*time.Second, func() error {
		code, said, err := page(p, "/readyz")
		if err != nil || code != 503 || !strings.Contains(said, "[-]linearizable_read failed") {
			return fmt.Errorf("readyz: %d %s (%v)", code, said, err)
		}
		return nil
	})
	if code, said, err := page(p, "/livez"); err != nil || code != 200 {
		t.Errorf("livez: %d %s (%v)", code, said, err)
	}
	if code, said, err := page(p, "/health"); err != nil || code != 503 || !strings.HasPrefix(said, `{"health":"false"`) {
		t.Errorf("health: %d %s (%v)", code, said, err)
	}
	c.eventually(30*time.Second, func() error {
		if m := metrics(t, p); m["etcd_server_has_leader"] != 0 || m["cairn_leases_lost_total"] == 0 {
			return fmt.Errorf("leader %v, leases lost %v", m["etcd_server_has_leader"], m["cairn_leases_lost_total"])
		}
		return nil
	})
	c.procs[1].start()
	c.procs[2].start()
	c.waitReady()
	c.eventually(30*time.Second, func() error {
		if m := metrics(t, p); m["etcd_server_has_leader"] != 1 {
			return fmt.Errorf("after they came back no leader is told")
		}
		return nil
	})
}
