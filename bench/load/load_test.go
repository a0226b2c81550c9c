package load

import (
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/bench/closed"
)

func TestValidate(t *testing.T) {
	good := Config{
		Config:    closed.Config{Clients: 1, Length: time.Second, Timeout: time.Second},
		Endpoints: []string{"a:1", "b:1", "c:1"}, Op: Put, Conns: 6, Keys: 1, ValueBytes: 128,
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{Endpoints: good.Endpoints, Op: "scan", Conns: 4}
	err := bad.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"clients", "4 connections", `"scan"`, "0 keys"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
}

func TestKey(t *testing.T) {
	for _, n := range []int{0, 1, 999_999_999_999} {
		if k := Key(n); len(k) != KeyBytes {
			t.Errorf("key %d is %q", n, k)
		}
	}
}
