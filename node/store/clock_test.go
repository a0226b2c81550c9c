package store

import (
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
