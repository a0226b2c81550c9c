package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The demo is the whole of the binary in one process: its cluster makes itself, serves etcd's clients, says how it
// is, and leaves nothing behind.
func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stopCtx, stop := context.WithCancel(ctx)
	out, in := io.Pipe()
	var errs bytes.Buffer
	exit := make(chan int, 1)
	go func() {
		exit <- run(stopCtx, env{out: in, err: &errs, getenv: func(string) string { return "" }}, []string{"demo"})
		_ = in.Close()
	}()
	addresses := demoAddresses(t, out)

	client, err := clientv3.New(clientv3.Config{Endpoints: addresses, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Put(ctx, "greeting", "hello"); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		client.SetEndpoints(a)
		got, err := client.Get(ctx, "greeting")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "hello" {
			t.Fatalf("through %s: %v, %v", a, got, err)
		}
	}
	members, err := client.MemberList(ctx)
	if err != nil || len(members.Members) != 3 {
		t.Errorf("members: %v, %v", members, err)
	}
	if st, err := client.Status(ctx, addresses[0]); err != nil || st.Version != "3.6.0" || st.Leader == 0 {
		t.Errorf("status: %v, %v", st, err)
	}

	printed, complaints, code := cairn(t, nil, "status", "--ranges", "-o", "json", "--host", addresses[1])
	var v view
	if err := json.Unmarshal([]byte(printed), &v); err != nil || code != exitOK {
		t.Fatalf("cairn status: %v, exit %d, %q", err, code, complaints)
	}
	if len(v.Nodes) != 3 || len(v.Ranges) != 4 || v.Ranges[3].Keyspace != "default" || v.Ranges[3].Leader.Address == "" {
		t.Errorf("cairn status: %s", printed)
	}
	if _, complaints, code := cairn(t, nil, "init", "--host", addresses[0]); code != exitFailed || !strings.Contains(complaints, "is already n") {
		t.Errorf("cairn init on a member: exit %d, %q", code, complaints)
	}

	stop()
	if code := <-exit; code != exitOK || errs.Len() != 0 {
		t.Errorf("the demo ended with %d, %q", code, errs.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("the demo left %v, %v", left, err)
	}
}

// demoAddresses reads what the demo prints when it is up, and lets the rest of its output go.
func demoAddresses(t *testing.T, out io.Reader) []string {
	t.Helper()
	var addresses []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if a := strings.TrimSpace(lines.Text()); strings.HasPrefix(a, "127.0.0.1:") {
			addresses = append(addresses, a)
		}
		if strings.Contains(lines.Text(), "member list") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return addresses
		}
	}
	t.Fatal("the demo did not come up")
	return nil
}
