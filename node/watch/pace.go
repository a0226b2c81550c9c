package watch

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// A response to a stream costs a node much the same whether it has one event or thirty: a sender, gRPC's writer of the connection, a
// system call. So after a step that sent to many streams the loop pauses, for as long as it would take to send each of them its events
// one by one, and what is applied meanwhile goes out in one response. Where few watch what is written, or little is written, that is
// shorter than a pause can be, and there is none: whatever comes is sent at once. Where events come faster than they could be sent one
// by one, each pause gathers more than the one before, up to a bound. What clients ask, and are answered, waits for no pause.

// pace is when a loop pauses.
type pace struct {
	until base.Instant
}

// next says, after a step at now, when the loop is to go on (0: not by itself), and whether it is woken before by what is applied.
// alone is how many responses the step's events would have been if they had been sent one by one, and hub when the hub wants to be stepped.
func (p *pace) next(now base.Instant, alone int, hub base.Instant) (wake base.Instant, open bool) {
	if d := time.Duration(alone) * base.WatchSendCost; d >= base.WatchPauseLeast {
		p.until = max(p.until, now.Add(min(d, base.WatchPauseMost)))
	}
	switch {
	case p.until <= now:
		return hub, true
	case hub == 0 || p.until < hub:
		return p.until, false
	}
	return hub, false
}
