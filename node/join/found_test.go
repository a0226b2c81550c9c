package join

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

func TestExpectedNodesFoundOneCluster(t *testing.T) {
	ms := newWorld(t).machines(3)
	for _, m := range ms {
		m.cfg = Config{Addresses: addresses(ms), Expect: 3}
		m.start()
	}
	oneCluster(t, ms)
	if ms[0].store.founded != 1 {
		t.Error("the cluster was not founded by the node with the lowest address")
	}
}

func TestExpectOneFoundsAlone(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	m.cfg = Config{Addresses: []string{m.address}, Expect: 1}
	m.start()
	oneCluster(t, []*machine{m})
}

// A process may die at any of its writes, before or after it is durable; the node that is started again on the
// store ends in the same one cluster.
func TestFoundingSurvivesACrashAtEveryWrite(t *testing.T) {
	for victim := range 3 {
		for _, late := range []bool{false, true} {
			for write := 1; write <= 2; write++ {
				t.Run(fmt.Sprintf("node %d, write %d, late %v", victim, write, late), func(t *testing.T) {
					ms := newWorld(t).machines(3)
					ms[victim].store.failAt, ms[victim].store.failLate = write, late
					for _, m := range ms {
						m.cfg = Config{Addresses: addresses(ms), Expect: 3}
						m.start()
					}
					<-ms[victim].store.crashed
					ms[victim].stop()
					ms[victim].start()
					oneCluster(t, ms)
				})
			}
		}
	}
}

func TestInitLetsTheOthersIn(t *testing.T) {
	ms := newWorld(t).machines(3)
	for _, m := range ms {
		m.cfg = Config{Addresses: addresses(ms)}
		m.start()
	}
	if _, err := ms[1].init(); err != nil {
		t.Fatal(err)
	}
	oneCluster(t, ms)
	_, err := ms[1].init()
	wantRefused(t, err, "is already n1 of cluster")
	_, err = ms[0].init()
	wantRefused(t, err, "of cluster")
}

func TestInitWithoutJoinList(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	m.start()
	resp, err := m.init()
	if err != nil || resp.ClusterId == 0 || resp.NodeId != 1 {
		t.Fatalf("init: %v, %v", resp, err)
	}
	oneCluster(t, []*machine{m})
}

func TestInitRefusesWhenOthersHaveACluster(t *testing.T) {
	ms := newWorld(t).machines(2)
	ms[0].start()
	if _, err := ms[0].init(); err != nil {
		t.Fatal(err)
	}
	// The second node is not started: nothing of its own would join before init is asked.
	e, err := New(Config{Store: ms[1].store, Addresses: addresses(ms[:1]),
		Self: &metapb.NodeRecord{Address: ms[1].address, Version: "0.1.0"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Init(t.Context())
	wantRefused(t, err, ms[0].address)
	if ms[1].store.id.ClusterId != 0 {
		t.Error("a refused init wrote an identity")
	}
}

// However init and the expected founding fall together, and on whatever nodes init is called, one cluster comes of it.
func TestInitDuringExpectedFounding(t *testing.T) {
	for round := range 20 {
		ms := newWorld(t).machines(3)
		for _, m := range ms {
			m.cfg = Config{Addresses: addresses(ms), Expect: 3}
			m.start()
		}
		var wg sync.WaitGroup
		for i := range 1 + round%3 {
			wg.Go(func() {
				if _, err := ms[2-i].init(); err != nil && !isFinal(err) {
					t.Errorf("init: %v", err)
				}
			})
		}
		wg.Wait()
		oneCluster(t, ms)
		for _, m := range ms {
			m.stop()
		}
	}
}

// An init that was refused, or whose node crashed, leaves the operator's word behind. Its node refuses all others
// from then on, so it must found the cluster itself.
func TestInitThatWasBrokenOffDecidesTheExpectedFounding(t *testing.T) {
	ms := newWorld(t).machines(3)
	ms[2].store.consent = consentTo(ms[2], true)
	expectFounder(t, ms, ms[2])
}

// The others may consent to a candidate before it can consent to itself. If it is then refused once, it is no candidate
// by what it holds itself, and everybody waits for it.
func TestConsentOfAllOthersMakesACandidate(t *testing.T) {
	ms := newWorld(t).machines(3)
	ms[0].store.consent = consentTo(ms[1], true)
	ms[1].store.consent = consentTo(ms[0], false)
	ms[2].store.consent = consentTo(ms[1], true)
	expectFounder(t, ms, ms[1])
}

// expectFounder has machines expect each other, and one of them found their cluster.
func expectFounder(t *testing.T, ms []*machine, founder *machine) {
	t.Helper()
	for _, m := range ms {
		m.cfg = Config{Addresses: addresses(ms), Expect: len(ms)}
		m.start()
	}
	oneCluster(t, ms)
	if founder.store.founded != 1 {
		t.Errorf("another node than %s founded the cluster", founder.address)
	}
}

func TestTwoInitsMakeOneCluster(t *testing.T) {
	for range 20 {
		ms := newWorld(t).machines(2)
		for _, m := range ms {
			m.cfg = Config{Addresses: addresses(ms)}
			m.start()
		}
		var wg sync.WaitGroup
		var errs [2]error
		for i, m := range ms {
			wg.Go(func() { _, errs[i] = m.init() })
		}
		wg.Wait()
		if errs[0] != nil && errs[1] != nil {
			t.Fatalf("both inits failed: %v; %v", errs[0], errs[1])
		}
		oneCluster(t, ms)
		for _, m := range ms {
			m.stop()
		}
	}
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	if !isFinal(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a refusal that says %q", err, text)
	}
}

func consentTo(m *machine, init bool) *clusterpb.ConsentRequest {
	return &clusterpb.ConsentRequest{CandidateStoreUuid: m.store.id.StoreUuid, CandidateAddress: m.address, Init: init}
}

func askFor(t *testing.T, of *machine, c *clusterpb.ConsentRequest, granted bool, reason string) {
	t.Helper()
	resp, err := of.entry.Consent(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Granted != granted || !strings.Contains(resp.Reason, reason) {
		t.Errorf("consent of %s to %s: %v, want granted %v and %q", of.address, c.CandidateAddress, resp, granted, reason)
	}
	if held, _ := of.store.Consent(); granted && !proto.Equal(held, c) {
		t.Errorf("granted %v and wrote %v", c, held)
	}
}

func TestConsentNamesOneCandidate(t *testing.T) {
	ms := newWorld(t).machines(4)
	for _, m := range ms {
		m.start() // without addresses: it waits, and answers
	}
	a, b, c, voter := ms[0], ms[1], ms[2], ms[3]
	askFor(t, voter, consentTo(b, false), true, "")
	askFor(t, voter, consentTo(b, false), true, "")
	askFor(t, voter, consentTo(c, false), false, "has consented that "+b.address)
	// a goes before b, and b consents to a when the voter asks it.
	askFor(t, voter, consentTo(a, false), true, "")
	if held, _ := b.store.Consent(); !sameCandidate(held, consentTo(a, false)) {
		t.Errorf("b was to give itself up for a, and holds %v", held)
	}
	// c goes before a when an operator says so.
	askFor(t, voter, consentTo(c, true), true, "")
	askFor(t, voter, consentTo(a, false), false, "has consented that "+c.address)
}

func TestConsentIsNotTakenBackFromAFounder(t *testing.T) {
	ms := newWorld(t).machines(3)
	for _, m := range ms {
		m.start()
	}
	askFor(t, ms[2], consentTo(ms[1], false), true, "")
	if _, err := ms[1].init(); err != nil {
		t.Fatal(err)
	}
	askFor(t, ms[2], consentTo(ms[0], false), false, "already part of cluster")
	ms[1].stop()
	askFor(t, ms[2], consentTo(ms[0], false), false, "cannot be reached")
	ms[1].store = newMemStore()
	ms[1].start()
	askFor(t, ms[2], consentTo(ms[0], false), false, "another store is at that address")
}

func TestConsentIsDurableBeforeItIsGiven(t *testing.T) {
	ms := newWorld(t).machines(2)
	ms[0].store.failAt = 1
	ms[0].start()
	if resp, err := ms[0].entry.Consent(t.Context(), consentTo(ms[1], false)); err == nil {
		t.Errorf("a consent that could not be written was answered: %v", resp)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	m := newWorld(t).machines(1)[0]
	m.start()
	m.cancel()
	if r := m.wait(); !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v", r.err)
	}
}
