package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A node whose disk is full ends with a message that says so, and with everything that it acknowledged; when there is
// room again it goes on.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a small file system can be mounted by root only; run this test as root, as CI does")
	}
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr, size string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "size="+size); err != nil {
			t.Fatalf("mounting a file system of %s: %v", size, err)
		}
	}
	mount(0, "24m")
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	addr := freeAddrs(t, 1)[0]
	p := newProc(t, "small", addr, "--join", addr, "--bootstrap-expect", "1")
	p.store = filepath.Join(dir, "store")
	p.args[2] = p.store
	p.start()
	c := &cluster{t: t, procs: []*proc{p}}
	c.waitReplicated(1)
	cl := c.client()
	acked := 0
	value := make([]byte, 200<<10)
	for i := range value {
		value[i] = byte(i * i >> 3)
	}
	for ; acked < 1000; acked++ {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := cl.Put(ctx, fmt.Sprintf("full/%04d", acked), string(value))
		cancel()
		if err != nil {
			break
		}
	}
	if code := p.wait(30 * time.Second); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, word := range []string{"the disk is full", "no space left"} {
		if !strings.Contains(p.log.String(), word) {
			t.Errorf("the message does not say %q", word)
		}
	}
	if strings.Contains(p.log.String(), "panic") {
		t.Error("a panic")
	}
	mount(syscall.MS_REMOUNT, "200m")
	p.start()
	c.waitReplicated(1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := cl.Get(ctx, "full/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) < acked {
		t.Errorf("%d keys after the restart, %d were acknowledged", len(resp.Kvs), acked)
	}
	if _, err := cl.Put(ctx, "full/after", "room"); err != nil {
		t.Error(err)
	}
}
