package store

import (
	"sync"
	"testing"

	"github.com/cairndb/cairn/internal/base"
)

// After a step back the clock goes on from where it was: what waits on it waits no longer than it asked for.
func TestClockGoesOnAfterAStepBack(t *testing.T) {
	shown := base.Instant(1000)
	c := &steady{read: func() base.Instant { return shown }}
	for _, step := range []struct{ shown, want base.Instant }{
		{1000, 1000}, {1010, 1010}, {10, 1010}, {15, 1015}, {2000, 3000}, {1999, 3000}, {2001, 3002},
	} {
		shown = step.shown
		if got := c.now(); got != step.want {
			t.Errorf("shown %d: %d, want %d", step.shown, got, step.want)
		}
	}
}

// Who reads the clock before another and takes its turn after it has seen no step back: the clock must not run on from the other's reading,
// or it would run faster the more it is asked, and what rests on it would end too early.
func TestClockIsNotHurriedByWhoIsLate(t *testing.T) {
	var mu sync.Mutex
	shown := base.Instant(1000)
	read, goOn := make(chan struct{}), make(chan struct{})
	first := true
	c := &steady{read: func() base.Instant {
		mu.Lock()
		now, late := shown, first
		first = false
		mu.Unlock()
		if late {
			close(read)
			<-goOn
		}
		return now
	}}
	done := make(chan base.Instant)
	go func() { done <- c.now() }()
	<-read
	mu.Lock()
	shown = 1500
	mu.Unlock()
	if got := c.now(); got != 1500 {
		t.Errorf("%d, want 1500", got)
	}
	close(goOn)
	if got := <-done; got != 1500 {
		t.Errorf("whoever is late is told %d, want 1500", got)
	}
	mu.Lock()
	shown = 1600
	mu.Unlock()
	if got := c.now(); got != 1600 {
		t.Errorf("the clock shows 1600, and %d is told", got)
	}
}
