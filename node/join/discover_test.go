package join

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

func TestSources(t *testing.T) {
	for _, c := range []struct {
		text string
		want source
		err  string
	}{
		{text: "db1:7400", want: source{text: "db1:7400"}},
		{text: "[::1]:7400", want: source{text: "[::1]:7400"}},
		{text: "dns:7400", want: source{text: "dns:7400"}}, // a host that is called dns
		{text: "srv:7400", want: source{text: "srv:7400"}},
		{text: "dns:db.example.org:7400", want: source{"dns:db.example.org:7400", "db.example.org", "7400"}},
		{text: "srv:_cairn._tcp.example.org", want: source{text: "srv:_cairn._tcp.example.org", name: "_cairn._tcp.example.org"}},
		{text: "dns:db.example.org", err: "give dns:NAME:PORT"},
		{text: "dns:db.example.org:0", err: "give dns:NAME:PORT"},
		{text: "dns::7400", err: "give dns:NAME:PORT"},
		{text: "dns:[::1]:7400", err: "is an address and no name"},
		{text: "dns:10.0.0.1:7400", err: "is an address and no name"},
		{text: "srv:", err: "not the name of SRV records"},
		{text: "srv:_cairn._tcp.example.org:7400", err: "not the name of SRV records"},
		{text: "nowhere", err: "not HOST:PORT"},
	} {
		got, err := parseSource(c.text)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: %+v, %v; want %+v", c.text, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v does not say %q", c.text, err, c.err)
		}
	}
}

func TestExpectedNodesThroughNames(t *testing.T) {
	for _, c := range []struct {
		sources []string
		expect  int
		err     string
	}{
		{[]string{"dns:db:7400"}, 3, ""},
		{[]string{"dns:db:7400"}, 0, ""},
		{[]string{"a:1"}, 1, ""},
		{[]string{"a:1", "dns:db:7400"}, 1, "would make a cluster of its own"},
		{[]string{"srv:_cairn._tcp.db"}, 1, "would make a cluster of its own"},
		{[]string{"a:1"}, 3, "--join names 1 nodes"},
		{[]string{"dns:db:7400"}, base.JoinAddresses + 1, "at most 64"},
		{slices.Repeat([]string{"dns:db:7400"}, base.JoinAddresses+1), 0, "at most 64"},
	} {
		err := errors.Join(CheckSources(c.sources, c.expect)...)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%d through %d parts as %q: %v, want %q", c.expect, len(c.sources), c.sources[0], err, c.err)
		}
	}
}

// named gives a machine a resolver, and a --join.
func (m *machine) named(d *dnsServer, expect int, join ...string) {
	m.cfg = Config{Addresses: join, Expect: expect, Resolver: d.resolver(), LookupTimeout: 300 * time.Millisecond}
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// srv is the record of a machine, whose host has the address that the machine has.
func (d *dnsServer) srv(m *machine) *net.SRV {
	host, p, err := net.SplitHostPort(m.address)
	if err != nil {
		d.t.Fatal(err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		d.t.Fatal(err)
	}
	name := "node" + p + ".cairn.test."
	d.host(name, host)
	return &net.SRV{Target: name, Port: uint16(n)}
}

const service1 = "_cairn._tcp.cairn.test."

// A node that is started before the names of its peers exist joins when they appear, whatever the server said before.
func TestNodeJoinsWhenItsPeersNamesAppear(t *testing.T) {
	for name, first := range map[string]mood{
		"no name": well, "no answer": silent, "cut off": cutOff, "malformed": malformed, "a failure": failing,
	} {
		for _, kind := range []string{"A", "AAAA", "SRV"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				founder := w.cluster(1)[0]
				member := founder
				if kind == "AAAA" {
					member = w.at("[::1]:0", founder.address)
				}
				d := newDNS(t)
				asked := d.set(first)
				m := w.machines(1)[0]
				if m.named(d, 0, "dns:db.cairn.test:"+port(member.address)); kind == "SRV" {
					m.named(d, 0, "srv:"+strings.TrimSuffix(service1, "."))
				}
				m.start()
				<-asked
				if kind == "SRV" {
					d.service(service1, d.srv(member))
				} else {
					host, _, _ := net.SplitHostPort(member.address)
					d.host("db.cairn.test.", host)
				}
				d.set(well)
				oneCluster(t, slices.Compact([]*machine{founder, member, m}))
			})
		}
	}
}

// at starts a node at an address, in the cluster of which another is a member; the test is skipped if the machine has no such
// address.
func (w *world) at(listen, via string) *machine {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		w.t.Skipf("%s: %v", listen, err)
	}
	m := &machine{world: w, address: l.Addr().String(), store: newMemStore(), listener: l, cfg: Config{Addresses: []string{via}}}
	m.start()
	m.mustEnter()
	return m
}

// An answer that does not fit into a datagram is asked for again over TCP.
func TestLargeAnswers(t *testing.T) {
	w := newWorld(t)
	member := w.cluster(1)[0]
	d := newDNS(t)
	d.host("db.cairn.test.", "127.0.0.1")
	m := w.machines(1)[0]
	m.named(d, 0, "dns:db.cairn.test:"+port(member.address))
	tcp := d.answeredOverTCP()
	m.start()
	<-tcp
	oneCluster(t, []*machine{member, m})
}

// A name that cannot be looked up is an address that does not answer: the others are asked as ever.
func TestDeadNameServerDoesNotStopTheRest(t *testing.T) {
	w := newWorld(t)
	member := w.cluster(1)[0]
	d := newDNS(t)
	asked := d.set(silent)
	m := w.machines(1)[0]
	m.named(d, 0, "dns:db.cairn.test:7400", member.address)
	m.start()
	<-asked
	oneCluster(t, []*machine{member, m})
}

// Whatever part of the names each node is shown, and however that changes, five nodes that expect three make one cluster.
func TestDifferentAnswersMakeOneCluster(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			ms := newWorld(t).machines(5)
			views := make([]*dnsServer, len(ms))
			records := make([][]*net.SRV, len(ms))
			for i, m := range ms {
				views[i] = newDNS(t)
				for _, other := range ms {
					records[i] = append(records[i], views[i].srv(other))
				}
				m.named(views[i], 3, "srv:"+service1)
			}
			show := func(i, n int) { // n of the records, drawn
				r.Shuffle(len(ms), func(a, b int) { records[i][a], records[i][b] = records[i][b], records[i][a] })
				views[i].service(service1, slices.Clone(records[i][:n])...)
			}
			for i, m := range ms {
				show(i, r.IntN(len(ms)))
				m.start()
			}
			for range 10 {
				i := r.IntN(len(ms))
				asked := views[i].set(mood(r.IntN(int(failing) + 1)))
				show(i, r.IntN(len(ms)+1))
				select {
				case <-asked:
				case <-ms[i].entry.entered: // it asks no more
				}
			}
			for i := range ms {
				show(i, len(ms))
				views[i].set(well)
			}
			oneCluster(t, ms)
		})
	}
}

// Names that lead to two clusters are no order to choose one, and none to give up: one of the answers is old.
func TestNameThatLeadsToTwoClusters(t *testing.T) {
	w := newWorld(t)
	ours, foreign := w.cluster(1)[0], w.cluster(1)[0]
	d := newDNS(t)
	d.service(service1, d.srv(ours), d.srv(foreign))
	m := w.machines(1)[0]
	m.named(d, 0, "srv:"+service1)
	e, err := New(m.config(t))
	if err != nil {
		t.Fatal(err)
	}
	if waiting, err := e.round(t.Context()); err != nil || !strings.Contains(waiting, "nodes of two clusters") {
		t.Fatalf("waiting for %q, %v", waiting, err)
	}
	_, err = e.Init(t.Context())
	wantRefused(t, err, "nodes of two clusters")
	d.service(service1, d.srv(ours))
	m.start()
	oneCluster(t, []*machine{ours, m})
	// A member that is started again does not stop for a name that leads elsewhere by now.
	m.stop()
	d.service(service1, d.srv(foreign), d.srv(ours))
	var found []string
	m.cfg.Found = func(id *clusterpb.IdentityResponse) { found = append(found, id.Address) }
	m.start()
	if _, err := m.announce(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(found, ours.address) || slices.Contains(found, foreign.address) {
		t.Errorf("found %v, want %s and not %s", found, ours.address, foreign.address)
	}
}

// Only this node itself behind a name is no mistake: the others are not there yet.
func TestNameThatLeadsHereAlone(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	d := newDNS(t)
	d.service(service1, d.srv(m))
	m.named(d, 3, "srv:"+service1)
	m.start()
	if waiting, err := m.entry.round(t.Context()); err != nil || !strings.Contains(waiting, "1 of 3 expected nodes") {
		t.Fatalf("waiting for %q, %v", waiting, err)
	}
}

// Why a node waits is the same in each round, as long as nothing changes: it is logged once.
func TestReasonsDoNotTremble(t *testing.T) {
	var nobody []*net.SRV
	for i := range 9 {
		nobody = append(nobody, &net.SRV{Target: fmt.Sprintf("gone%d.cairn.test.", i), Port: 7400})
	}
	for name, change := range map[string]func(*dnsServer){
		"no name":         func(*dnsServer) {},
		"no answer":       func(d *dnsServer) { d.set(silent) },
		"malformed":       func(d *dnsServer) { d.set(malformed) },
		"a failure":       func(d *dnsServer) { d.set(failing) },
		"hosts that fail": func(d *dnsServer) { d.service(service1, nobody...) },
		"nobody there":    func(d *dnsServer) { d.host("db.cairn.test.", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5") },
		"no name server":  func(d *dnsServer) { d.udp.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newWorld(t).machines(1)[0]
			d := newDNS(t)
			m.named(d, 0, "dns:db.cairn.test:1", "srv:"+service1)
			change(d)
			e, err := New(m.config(t))
			if err != nil {
				t.Fatal(err)
			}
			var first string
			for round := range 4 {
				waiting, err := e.round(t.Context())
				if err != nil || !strings.Contains(waiting, "no answer from") {
					t.Fatalf("%q, %v", waiting, err)
				}
				if round == 0 {
					first = waiting
				} else if waiting != first {
					t.Fatalf("first\n%s\nand then\n%s", first, waiting)
				}
			}
		})
	}
}

func (m *machine) config(t *testing.T) Config {
	cfg := m.cfg
	cfg.Store, cfg.Self = m.store, &metapb.NodeRecord{Address: m.address, Version: "0.1.0", Incarnation: 1}
	return cfg
}

// manyAnswers is a resolver with more addresses than can be asked, some twice.
type manyAnswers struct{}

func (manyAnswers) LookupNetIP(context.Context, string, string) (ips []netip.Addr, err error) {
	for i := range 500 {
		ip := netip.AddrFrom4([4]byte{10, 0, byte(i / 200), byte(i % 200)})
		ips = append(ips, ip, netip.AddrFrom16(ip.As16()))
	}
	return append(ips, netip.IPv4Unspecified()), nil
}

func (manyAnswers) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	records := slices.Repeat([]*net.SRV{{Target: "a.", Port: 7400}, {Target: ".", Port: 7400}, {Target: "b."}, nil}, 300)
	return "", records, &net.DNSError{Err: "some were malformed"}
}

func TestAnswersAreBounded(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	m.cfg = Config{Addresses: []string{"10.0.0.7:7400", "dns:db:7400", "srv:_cairn._tcp.db"}, Resolver: manyAnswers{}}
	e, err := New(m.config(t))
	if err != nil {
		t.Fatal(err)
	}
	drawn := make(map[string]bool)
	for range 20 {
		places, silent := e.discover(t.Context())
		if len(places) != base.JoinAddresses || places[0] != (place{address: "10.0.0.7:7400"}) {
			t.Fatalf("%d places, the first is %v", len(places), places[0])
		}
		if len(silent) != 1 || !strings.Contains(silent[0], "some were malformed") {
			t.Fatalf("silent: %v", silent)
		}
		now := make(map[string]bool)
		for _, p := range places {
			if now[p.address] {
				t.Fatalf("%s twice", p.address)
			}
			if err := CheckAddress(p.address); err != nil {
				t.Fatal(err)
			}
			now[p.address], drawn[p.address] = true, true
		}
	}
	if len(drawn) < 200 {
		t.Errorf("in 20 rounds %d of 500 addresses were drawn", len(drawn))
	}
}
