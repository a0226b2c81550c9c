package watch

import (
	"testing"

	"github.com/cairndb/cairn/internal/base"
)

// crowded is a hub with one stream of many watches of one key, more than can be sent one event at once.
type crowded struct {
	t    *testing.T
	h    *Hub
	next base.Revision
	got  map[int64][]base.Revision
	took map[int64]int // responses
	outs []Out         // not read
}

func newCrowded(t *testing.T, watches int) *crowded {
	c := &crowded{t: t, h: NewHub(Config{Rand: base.NewRand(1), StreamBytes: 32 << 10}), next: 101, got: map[int64][]base.Revision{}, took: map[int64]int{}}
	c.h.Open(1)
	for i := range watches {
		c.h.Create(1, int64(i+1), Spec{Keyspace: worldKS, Start: []byte("k"), End: []byte("k\x00")})
	}
	ask := c.h.Step(0).Asks[0]
	c.h.Answered(ask.ID, Answer{Page: &Page{Range: 10, Start: ask.Start, Next: 101}})
	c.h.Applied(&Applied{Range: 10, Descriptor: descriptor(10, "", "", 1), From: 101, Next: 101})
	c.step()
	c.read()
	if n := len(c.h.layout[0].parts); n != 1 {
		t.Fatalf("the watches of one key are at one place, and stand at %d cursors", n)
	}
	return c
}

func (c *crowded) write() {
	e := &Event{Key: []byte("k"), Revision: c.next, Wire: make([]byte, 150)}
	c.h.Applied(&Applied{Range: 10, Descriptor: descriptor(10, "", "", 1), From: c.next, Next: c.next + 1, Events: []*Event{e}})
	c.next++
}

// step steps the hub until it has nothing to do but wait.
func (c *crowded) step() {
	c.t.Helper()
	for again := true; again; {
		eff := c.h.Step(1)
		audit(c.t, c.h)
		c.outs = append(c.outs, eff.Out...)
		again = eff.Wake == 1
	}
}

// read reads all that is there.
func (c *crowded) read() {
	for _, o := range c.outs {
		for _, e := range o.Events {
			c.got[o.Watch] = append(c.got[o.Watch], e.Revision)
		}
		if o.Kind == Events {
			c.took[o.Watch]++
		}
		c.h.Sent(1, o.Bytes)
	}
	c.outs = nil
}

// TestParkedGoOnTogether: watches of one stream that were parked at one place are sent the same slices when they go on, which are then
// made into bytes once for many of them; and all get everything, in order, once.
func TestParkedGoOnTogether(t *testing.T) {
	const watches, writes = 1000, 40
	c := newCrowded(t, watches)
	responses, lists := 0, map[**Event]bool{}
	for n := 0; ; n++ {
		if n < writes {
			c.write()
		}
		c.step()
		if n >= writes && len(c.outs) == 0 {
			break
		}
		for _, o := range c.outs {
			responses++
			lists[&o.Events[0]] = true
		}
		c.read()
	}
	for id := range int64(watches) {
		got := c.got[id+1]
		for i, r := range got {
			if r != base.Revision(101+i) {
				t.Fatalf("w%d got %v", id+1, got)
			}
		}
		if len(got) != writes {
			t.Fatalf("w%d got %d events of %d", id+1, len(got), writes)
		}
	}
	if made := len(lists); responses < watches || made*5 > responses {
		t.Errorf("%d responses are made of %d lists of events", responses, made)
	}
}

// TestParkedAgainAreFirst: those of a group for which there was no room go on before those that were parked behind them. Here all that
// were sent the first event at once are parked behind the others by the second: none of them gets that before all have the first.
func TestParkedAgainAreFirst(t *testing.T) {
	const watches = 1000
	c := newCrowded(t, watches)
	c.write()
	c.step()
	c.write()
	for last := -1; len(c.got) < watches; {
		c.step()
		c.read()
		if len(c.got) == last {
			t.Fatalf("%d of %d got anything, and no further one does", last, watches)
		}
		last = len(c.got)
		for id, took := range c.took {
			if took > 1 && last < watches {
				t.Fatalf("w%d got a second response when %d of %d had one", id, last, watches)
			}
		}
	}
}

// TestRoomIsForWhoWaits: while a reader is slower than what is written, those that were parked are not passed over for those that were not.
func TestRoomIsForWhoWaits(t *testing.T) {
	const watches, most = 1000, 100
	c := newCrowded(t, watches)
	for n := 0; len(c.got) < watches; n++ {
		if n == most {
			t.Fatalf("%d of %d watches got anything while %d events were written and read", len(c.got), watches, n)
		}
		c.write()
		c.step()
		c.read()
	}
}
