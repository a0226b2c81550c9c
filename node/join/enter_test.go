package join

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// cluster starts n machines and returns them as members, announced, with node ids 1 to n in order.
func (w *world) cluster(n int) []*machine {
	w.t.Helper()
	ms := w.machines(n)
	for i, m := range ms {
		if i > 0 {
			m.cfg = Config{Addresses: addresses(ms[:1])}
		}
		m.start()
		if i == 0 {
			if _, err := m.init(); err != nil {
				w.t.Fatal(err)
			}
		}
		m.mustEnter()
		if _, err := m.announce(); err != nil {
			w.t.Fatal(err)
		}
	}
	return ms
}

// newcomer returns a machine that is to join through those given.
func (w *world) newcomer(via ...*machine) *machine {
	m := w.machines(1)[0]
	m.cfg = Config{Addresses: addresses(via)}
	return m
}

func (m *machine) record(t *testing.T, id uint64) *metapb.NodeRecord {
	t.Helper()
	nodes, err := ReadNodes(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.NodeId == id {
			return n
		}
	}
	t.Fatalf("there is no record of node %d in %v", id, nodes)
	return nil
}

func TestManyJoinAtOnce(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	ms := w.machines(8)
	for _, m := range ms {
		m.cfg = Config{Addresses: append(addresses(ms), first.address)}
		m.start()
	}
	all := append(ms, first)
	oneCluster(t, all)
	for _, m := range ms {
		if len(m.store.book.Nodes) < 2 {
			t.Errorf("%s was told of %d nodes", m.address, len(m.store.book.Nodes))
		}
	}
}

func TestJoinIsTheSameTwice(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	m := w.newcomer(first)
	m.store.failAt = 1 // the member's answer is lost with the process
	m.start()
	<-m.store.crashed
	m.stop()
	m.start()
	if id := m.mustEnter(); id.NodeId != 2 {
		t.Errorf("joined as node %d the second time, want 2", id.NodeId)
	}
	if nodes, err := ReadNodes(t.Context(), first); err != nil || len(nodes) != 2 {
		t.Errorf("%d records, %v", len(nodes), err)
	}
}

func TestJoinWithUnknownOutcome(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	w.sys(first.store.id.ClusterId).ambiguous = 1
	m := w.newcomer(first)
	m.start()
	if id := m.mustEnter(); id.NodeId != 2 {
		t.Errorf("joined as node %d, want 2", id.NodeId)
	}
	next := w.newcomer(first)
	next.start()
	if id := next.mustEnter(); id.NodeId != 3 {
		t.Errorf("the next joined as node %d, want 3", id.NodeId)
	}
}

func TestEveryAddressIsTheNodeItself(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	m.cfg = Config{Addresses: []string{m.address, m.address}}
	m.start()
	wantRefused(t, m.wait().err, "every address of --join is this node itself")
}

func TestAddressesOfTwoClusters(t *testing.T) {
	w := newWorld(t)
	a, b := w.cluster(1)[0], w.cluster(1)[0]
	m := w.newcomer(a, b)
	m.start()
	wantRefused(t, m.wait().err, "--join names nodes of two clusters")
}

func TestStoreOfAnotherCluster(t *testing.T) {
	w := newWorld(t)
	a, b := w.cluster(2), w.cluster(1)[0]
	a[1].stop()
	a[1].cfg = Config{Addresses: addresses([]*machine{b})}
	a[1].start()
	a[1].mustEnter()
	_, err := a[1].announce()
	wantRefused(t, err, "of --join is part of cluster")

	// And a member says the same if it is asked nevertheless.
	_, err = b.registrar.Announce(t.Context(), &clusterpb.AnnounceRequest{ClusterId: a[0].store.id.ClusterId,
		Node: a[1].entry.self()})
	wantRefused(t, err, "the store belongs to cluster")
	_, err = b.registrar.Join(t.Context(), &clusterpb.JoinRequest{Node: a[1].entry.self()})
	wantRefused(t, err, "belongs to cluster")
}

// A member that is started again does not wait for an address of --join that leads nowhere, nor for one that it has of a node.
func TestAnAddressThatLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	a := w.cluster(2)
	a[1].stop()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	a[1].cfg = Config{Addresses: []string{mute.Addr().String(), a[0].address}, ProbeTimeout: time.Minute}
	a[1].start()
	a[1].mustEnter()
	had := func() []*metapb.NodeRecord {
		return []*metapb.NodeRecord{{NodeId: 3, Address: mute.Addr().String(), State: metapb.NodeState_NODE_STATE_ACTIVE}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a[1].entry.AnnounceSelf(ctx, had, a[1].registrar.Announce); err != nil {
		t.Fatalf("it waits: %v", err)
	}
	// One of another cluster that answers is told of nevertheless.
	b := w.cluster(1)[0]
	a[1].stop()
	a[1].cfg.Addresses = append(a[1].cfg.Addresses, b.address)
	a[1].start()
	a[1].mustEnter()
	_, err = a[1].announce()
	wantRefused(t, err, "--join names nodes of two clusters")
}

func TestCopiedStore(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	twin := w.newcomer(first)
	twin.start()
	twin.mustEnter()
	copied := w.newcomer(first, twin)
	copied.store.id = &metapb.StoreIdentity{StoreUuid: twin.store.id.StoreUuid, Format: 1}
	copied.start()
	wantRefused(t, copied.wait().err, "runs on the same store")
}

func TestTwoNodesWithOneAddress(t *testing.T) {
	w := newWorld(t)
	ms := w.cluster(2)
	m := w.newcomer(ms[0])
	m.cfg.Self = &metapb.NodeRecord{Address: ms[1].address, Version: "0.1.0"}
	m.start()
	wantRefused(t, m.wait().err, "is in use by n2")
}

func TestAddressOfAnotherNewcomer(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	idle := w.newcomer()
	idle.start()
	m := w.newcomer(first)
	m.cfg.Self = &metapb.NodeRecord{Address: idle.address, Version: "0.1.0"}
	m.start()
	wantRefused(t, m.wait().err, "is answered by another node")
}

func TestUnreachableAddress(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	m := w.newcomer(first)
	m.cfg.Self = &metapb.NodeRecord{Address: address, Version: "0.1.0"}
	m.start()
	wantRefused(t, m.wait().err, "n1 cannot reach the advertised address "+address)
}

func TestUnusableAddresses(t *testing.T) {
	for _, a := range []string{"", "host", ":7400", "0.0.0.0:7400", "[::]:7400", "host:0", "host:65536", "host:http"} {
		if err := CheckAddress(a); err == nil {
			t.Errorf("%q was taken for an address that others can reach", a)
		}
	}
	for _, a := range []string{"host:7400", "10.0.0.1:1", "[fd00::1]:65535"} {
		if err := CheckAddress(a); err != nil {
			t.Errorf("%q: %v", a, err)
		}
	}
}

func TestNodeWhoseStoreWasDeleted(t *testing.T) {
	w := newWorld(t)
	ms := w.cluster(3)
	lost := ms[2]
	lost.stop()
	old := lost.store
	lost.store = newMemStore()
	lost.start()
	wantRefused(t, lost.wait().err, "--replace-lost")
	lost.stop()

	lost.cfg.ReplaceLost = true
	lost.start()
	if id := lost.mustEnter(); id.NodeId != 4 {
		t.Errorf("joined as node %d, want 4", id.NodeId)
	}
	if _, err := lost.announce(); err != nil {
		t.Fatal(err)
	}
	if st := ms[0].record(t, 3).State; st != metapb.NodeState_NODE_STATE_REPLACED {
		t.Errorf("node 3 is %v, want REPLACED", st)
	}
	lost.stop()

	// The old store turns up again.
	lost.cfg.ReplaceLost = false
	lost.store = old
	lost.start()
	lost.mustEnter()
	_, err := lost.announce()
	wantRefused(t, err, "it can never come back")
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		member, newcomer string
		ok               bool
	}{
		{"0.1.0", "0.1.7", true}, {"0.1.0", "0.2.0-rc.1", true}, {"v0.2.0", "0.1.3+build", true},
		{"0.1.0", "0.3.0", false}, {"0.3.0", "0.1.0", false}, {"1.0.0", "0.9.0", false},
		{"0.1.0", "", false}, {"0.1.0", "1", false}, {"0.1.0", "a.b.c", false},
	} {
		if err := compatible(c.member, c.newcomer); (err == nil) != c.ok {
			t.Errorf("%s lets %s in: %v, want ok %v", c.member, c.newcomer, err, c.ok)
		}
	}
	w := newWorld(t)
	m := w.newcomer(w.cluster(1)...)
	m.cfg.Self = &metapb.NodeRecord{Address: m.address, Version: "0.3.0"}
	m.start()
	wantRefused(t, m.wait().err, "at most one minor version")
}

func TestAnnounce(t *testing.T) {
	w := newWorld(t)
	ms := w.cluster(2)
	for i, m := range ms {
		rec := ms[0].record(t, uint64(i+1))
		if rec.State != metapb.NodeState_NODE_STATE_ACTIVE || rec.Address != m.address || rec.Incarnation != 1 {
			t.Errorf("after the first start: %v", rec)
		}
	}
	moved, previous := ms[1], ms[1].address
	moved.stop()
	relisten(t, moved)
	moved.start()
	moved.mustEnter()
	resp, err := moved.announce()
	if err != nil {
		t.Fatal(err)
	}
	rec := ms[0].record(t, 2)
	if rec.Address != moved.address || rec.Incarnation != 2 || rec.State != metapb.NodeState_NODE_STATE_ACTIVE {
		t.Errorf("after a start at another address: %v", rec)
	}
	if len(resp.Nodes) != 2 || resp.Nodes[1].Address != moved.address || resp.Root.GetRangeId() == 0 {
		t.Errorf("the answer to the announcement: %v", resp)
	}
	// The address that it left can be had by another.
	next := w.newcomer(ms[0])
	next.address, next.listener = previous, nil
	next.start()
	if id := next.mustEnter(); id.NodeId != 3 {
		t.Errorf("joined as node %d, want 3", id.NodeId)
	}
}

// relisten moves a stopped machine to a free address.
func relisten(t *testing.T, m *machine) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address, m.listener = l.Addr().String(), l
}

func TestAnnounceRefusals(t *testing.T) {
	w := newWorld(t)
	ms := w.cluster(2)
	ask := func(change func(*clusterpb.AnnounceRequest)) error {
		node := ms[1].entry.self()
		node.NodeId, node.Incarnation = 2, 5
		req := &clusterpb.AnnounceRequest{ClusterId: ms[0].store.id.ClusterId, Node: node}
		change(req)
		_, err := ms[0].registrar.Announce(t.Context(), req)
		return err
	}
	if err := ask(func(*clusterpb.AnnounceRequest) {}); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.Incarnation = 4 }), "restored from an old copy")
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.NodeId = 9 }), "has no record")
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.StoreUuid = ms[0].store.id.StoreUuid }), "is another store")
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.Address = ms[0].address }), "is in use by n1")
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.Address = "0.0.0.0:1" }), "--advertise")
	wantRefused(t, ask(func(r *clusterpb.AnnounceRequest) { r.Node.StoreUuid = nil }), "uuid")
}

func TestOutsiderCannotLetAnybodyIn(t *testing.T) {
	ms := newWorld(t).machines(2)
	for _, m := range ms {
		m.start()
	}
	if _, err := ms[0].registrar.Join(t.Context(), &clusterpb.JoinRequest{Node: ms[1].entry.self()}); err != ErrNotInitialised {
		t.Errorf("Join: %v", err)
	}
	if _, err := ms[0].registrar.Announce(t.Context(), &clusterpb.AnnounceRequest{}); err != ErrNotInitialised {
		t.Errorf("Announce: %v", err)
	}
}

// --replace-lost takes an address from a lost store only, however often it is tried.
func TestReplaceLostTakesNothingFromTheLiving(t *testing.T) {
	w := newWorld(t)
	first := w.cluster(1)[0]
	address := first.address
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			m := &machine{world: w, address: address, store: newMemStore()}
			e, err := New(Config{Store: m.store, Self: &metapb.NodeRecord{Address: address, Version: "0.1.0"}})
			if err != nil {
				t.Error(err)
				return
			}
			_, err = first.registrar.Join(t.Context(), &clusterpb.JoinRequest{Node: e.self(), ReplaceLost: true})
			wantRefused(t, err, "is in use by n1")
		})
	}
	wg.Wait()
}

func TestConfigValidate(t *testing.T) {
	_, err := New(Config{Store: newMemStore(), Self: &metapb.NodeRecord{Address: ":1", Version: "x"},
		Addresses: []string{"nowhere"}, Expect: -1})
	for _, part := range []string{"advertised address", "MAJOR.MINOR.PATCH", "an address of --join", "--bootstrap-expect -1"} {
		if err == nil || !contains(err, part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}
