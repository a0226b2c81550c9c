package watch

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/base"
)

// The stories in testdata tell of a node whose clients watch, a line each. What the hub wants is printed as it is stepped: out, ask,
// cancel, want.
//
//	ranges a m …               split there, from then on r10 r11 …
//	replica r10 [AT] | apply r10 [AT] | snapshot r10 | remove r10
//	open S | close S | create S ID|- START END|. from=N prev noput nodelete fragment progress | cancel S ID | progress S | read S N
//	write r10 [size=N] k -k … | raise r10 N | split r10 k | merge r10 | compact r10 N
//	answer N [r10 [AT]] [most=N] | fail N | dropped N | step [DURATION] | run (answers and steps until nothing is left) | clock N
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{t: t}
		s.w = newWorld(t)
		s.w.local[10] = &replica{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			for line := range strings.Lines(d.Input) {
				s.do(strings.Fields(line))
			}
			return s.out.String()
		})
	})
}

type story struct {
	t   *testing.T
	w   *world
	out strings.Builder
}

func (s *story) number(f string) int {
	n, err := strconv.Atoi(strings.TrimLeft(f, "rs"))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *story) do(f []string) {
	w := s.w
	id := func() base.RangeID { return base.RangeID(s.number(f[1])) }
	r := func() *rangeLog { return w.byID(id()) }
	at := func(i int) int {
		if len(f) > i {
			return s.number(f[i])
		}
		return len(r().states) - 1
	}
	client := func() *client { return w.clients[StreamID(s.number(f[1]))] }
	switch f[0] {
	case "clock":
		w.clock = base.Revision(s.number(f[1]))
	case "replica":
		w.place(id(), at(2))
	case "apply":
		w.apply(id(), at(2))
	case "snapshot":
		w.snapshot(id(), at(2))
	case "remove":
		w.remove(id())
	case "write":
		size, keys := 10, f[2:]
		if v, ok := strings.CutPrefix(keys[0], "size="); ok {
			size, keys = s.number(v), keys[1:]
		}
		fmt.Fprintf(&s.out, "%d\n", w.write(r(), size, keys...))
	case "raise":
		w.raise(r(), base.Revision(s.number(f[2])))
	case "split":
		fmt.Fprintf(&s.out, "r%d\n", w.split(r(), f[2]).id)
	case "merge":
		if right := w.merge(r()); w.local[right.id] != nil {
			w.remove(right.id)
		}
	case "compact":
		r().entry(func(st *state) { st.compacted = base.Revision(s.number(f[2])) })
	case "open":
		w.open(StreamID(s.number(f[1])))
	case "close":
		w.both(func(h *Hub) { h.CloseStream(StreamID(s.number(f[1]))) })
	case "cancel":
		w.cancel(client(), int64(s.number(f[2])))
	case "progress":
		w.both(func(h *Hub) { h.Progress(client().id) })
	case "read":
		w.read(client(), s.number(f[2]))
	case "create":
		s.create(client(), f[2:])
	default:
		s.answers(f)
	}
}

func (s *story) create(c *client, f []string) {
	spec := Spec{Start: []byte(strings.Trim(f[1], `"`))}
	switch f[2] {
	case ".":
		spec.End = append([]byte(f[1]), 0)
	default:
		spec.End = []byte(strings.Trim(f[2], `"`))
	}
	for _, opt := range f[3:] {
		name, v, _ := strings.Cut(opt, "=")
		switch name {
		case "from":
			spec.From = base.Revision(s.number(v))
		case "prev":
			spec.PrevKV = true
		case "noput":
			spec.NoPut = true
		case "nodelete":
			spec.NoDelete = true
		case "fragment":
			spec.Fragment = true
		case "progress":
			spec.Progress = true
		default:
			s.t.Fatalf("a create has no %q", opt)
		}
	}
	id := 0 // the hub chooses
	if f[0] != "-" {
		id = s.number(f[0])
	}
	s.w.create(c, int64(id), spec)
}

func (s *story) answers(f []string) {
	w := s.w
	find := func() int {
		for i, a := range w.asks {
			if a.ID == uint64(s.number(f[1])) {
				return i
			}
		}
		s.t.Fatalf("nothing is asked under %s", f[1])
		return 0
	}
	switch f[0] {
	case "answer":
		from, most := func(a Ask) server { return w.latest(a.Start) }, 1000
		for i, opt := range f[2:] {
			if v, ok := strings.CutPrefix(opt, "most="); ok {
				most = s.number(v)
			} else if i == 0 {
				r := w.byID(base.RangeID(s.number(opt)))
				at := len(r.states) - 1
				if len(f) > 3 && !strings.Contains(f[3], "=") {
					at = s.number(f[3])
				}
				from = func(Ask) server { return server{r, at} }
			}
		}
		if !w.serve(find(), from, most) {
			s.out.WriteString("it waits\n")
		}
	case "dropped":
		w.answer(find(), Answer{Err: fmt.Errorf("asked: %w", &base.KeyspaceDropped{Keyspace: worldKS})})
	case "fail":
		w.answer(find(), Answer{Err: base.ErrStopped})
	case "step":
		d := time.Duration(0)
		if len(f) > 1 {
			var err error
			if d, err = time.ParseDuration(f[1]); err != nil {
				s.t.Fatal(err)
			}
		}
		s.print(w.step(d))
	case "run":
		for busy := true; busy; {
			eff := w.step(20 * time.Millisecond)
			s.print(eff)
			busy = len(eff.Out)+len(eff.Asks)+len(eff.Wants) > 0
			for i := 0; i < len(w.asks); {
				if !w.serve(i, func(a Ask) server { return w.latest(a.Start) }, 1000) {
					i++
				} else {
					busy = true
				}
			}
			for _, r := range w.ranges {
				if rep := w.local[r.id]; rep != nil && rep.at < len(r.states)-1 {
					w.apply(r.id, len(r.states)-1)
					busy = true
				}
			}
		}
	default:
		s.t.Fatalf("a story does not say %q", f)
	}
}

func (s *story) print(eff Effects) {
	for _, o := range eff.Out {
		fmt.Fprintf(&s.out, "out %s\n", show(o))
	}
	for _, e := range eff.Ends {
		fmt.Fprintf(&s.out, "end s%d: %v\n", e.Stream, e.Err)
	}
	for _, a := range eff.Asks {
		switch a.Kind {
		case Pull:
			fmt.Fprintf(&s.out, "ask %d: pull [%q, %q) from %d", a.ID, a.Start, a.End, a.From)
			if a.Prev {
				s.out.WriteString(" with the version before")
			}
			if a.Wait {
				s.out.WriteString(", wait")
			}
		case Close:
			fmt.Fprintf(&s.out, "ask %d: close", a.ID)
			for _, q := range a.Quiet {
				fmt.Fprintf(&s.out, " %q above %d", q.Key, q.Above)
			}
		case Now:
			fmt.Fprintf(&s.out, "ask %d: now of [%q, %q)", a.ID, a.Start, a.End)
		}
		s.out.WriteString("\n")
	}
	for _, id := range eff.Cancel {
		fmt.Fprintf(&s.out, "cancel %d\n", id)
	}
	for _, w := range eff.Wants {
		fmt.Fprintf(&s.out, "want %s: events %v, prev %v\n", w.Range, w.Events, w.Prev)
	}
}
