package enginetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cairndb/cairn/kv/engine"
)

// CrashStore is a new, empty engine and the crashes that it can meet.
type CrashStore struct {
	Engine engine.Engine
	// Between, if set, is called between two steps: it takes the images of crashes that may come there.
	Between func()
}

// Image opens what a crash left.
type Image func() (engine.Engine, error)

// RunCrash runs a story of batches, tables and flushes, and opens what is left by a crash at every instant at which open's
// engine calls crash, from any goroutine, to take an image. An image must hold what the story had written after one of its steps, none of a later one, and at
// least every step that was said to be durable: a prefix of what was committed, with ingestions all or nothing.
func RunCrash(t *testing.T, open func(t *testing.T, crash func(take func() Image)) CrashStore) {
	s := &crashStory{}
	c := open(t, s.crash)
	s.run(t, c)
	must(t, c.Engine.Close())
	if len(s.images) < len(s.states) {
		t.Fatalf("only %d images of a story of %d steps", len(s.images), len(s.states))
	}
	for i, image := range s.images {
		e, err := image.open()
		if err != nil {
			t.Fatalf("image %d does not open: %v", i, err)
		}
		got := dump(t, e)
		must(t, e.Close())
		if !s.holds(got, image.durable, image.begun) {
			t.Fatalf("image %d holds %q; durable was\n%q, and the last step that had begun makes\n%q", i, got, s.states[image.durable], s.states[image.begun])
		}
	}
	t.Logf("%d images of %d steps", len(s.images), len(s.states)-1)
}

type crashStory struct {
	states []string // what the engine holds after each step; the first is empty

	mu      sync.Mutex
	durable int // step that is known to be durable
	begun   int // step that has begun
	images  []crashImage
}

type crashImage struct {
	open           Image
	durable, begun int
}

// crash takes an image while the story stands still in what it says is durable.
func (s *crashStory) crash(take func() Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = append(s.images, crashImage{take(), s.durable, s.begun})
}

// holds says whether content is the state after one of the steps.
func (s *crashStory) holds(content string, from, to int) bool {
	for _, state := range s.states[from : to+1] {
		if state == content {
			return true
		}
	}
	return false
}

func (s *crashStory) run(t *testing.T, c CrashStore) {
	const rounds = 3
	s.states = []string{""}
	step := func(durable bool, f func()) {
		s.mu.Lock()
		s.begun++
		s.mu.Unlock()
		f()
		s.states = append(s.states, dump(t, c.Engine))
		s.mu.Lock()
		if durable {
			s.durable = s.begun
		}
		s.mu.Unlock()
		if c.Between != nil {
			c.Between()
		}
	}
	for i := range rounds {
		n := fmt.Sprint(i)
		step(false, func() { write(t, c.Engine, false, "a=1."+n, "b"+n+"=1") })
		step(false, func() { write(t, c.Engine, false, "a=2."+n, "m"+n+"=2") })
		step(true, func() { write(t, c.Engine, true, "z=3."+n) })
		step(false, func() { write(t, c.Engine, false, "a=4."+n, "-[m,m0)") })
		// Beside everything in memory, and then over some of it.
		step(true, func() {
			must(t, c.Engine.Ingest([]string{table(t, c.Engine, "q"+n, "q=5."+n, "r=5")}, engine.Span{Start: []byte("q"), End: []byte("s")}))
		})
		step(false, func() { write(t, c.Engine, false, "a=6."+n, "-z") })
		step(true, func() {
			must(t, c.Engine.Ingest([]string{table(t, c.Engine, "a"+n, "-[a,b)", "a=7."+n), table(t, c.Engine, "m"+n, "m9=7")}, engine.Span{Start: []byte("m"), End: []byte("n")}))
		})
		step(false, func() { write(t, c.Engine, false, "c=8."+n) })
		step(false, func() { must(t, c.Engine.Flush()) })
	}
}
