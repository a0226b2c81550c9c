package memnet_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
	"github.com/cairndb/cairn/transport/memnet"
	"github.com/cairndb/cairn/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t *testing.T, one, two transport.Handler) *transporttest.Cluster {
		n := memnet.New()
		a, b := n.Join(1, one), n.Join(2, two)
		t.Cleanup(a.Close)
		return &transporttest.Cluster{
			Nodes:   [2]transport.Transport{a, b},
			Pump:    func() { n.Deliver(1 << 20) },
			Stop:    func() { b.Close() },
			Restart: func(h transport.Handler) { b = n.Join(2, h) },
		}
	})
}

// Links can be cut and held one by one, and in one direction; what is held arrives in the order in which it was sent.
func TestLinks(t *testing.T) {
	n := memnet.New()
	one, two := transporttest.NewRecorder(), transporttest.NewRecorder()
	a, b := n.Join(1, one), n.Join(2, two)
	n.Hold(1, 2)
	for _, s := range []string{"x", "y"} {
		if err := a.Send(2, transport.Raft, []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.Deliver(10); got != 0 {
		t.Errorf("%d frames crossed a held link", got)
	}
	n.Release(1, 2)
	if got := n.Deliver(10); got != 2 {
		t.Errorf("%d frames after the release, want 2", got)
	}
	n.Partition(1, 2)
	if err := a.Send(2, transport.Raft, []byte("lost")); err == nil {
		t.Error("sent over a link that is cut")
	}
	if err := b.Send(1, transport.Raft, []byte("back")); err != nil {
		t.Errorf("the other direction: %v", err)
	}
	if lost := n.Drop(func(_, _ base.NodeID, _ transport.Class) bool { return true }); lost != 1 {
		t.Errorf("%d frames dropped, want 1", lost)
	}
}
