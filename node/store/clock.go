package store

import (
	"golang.org/x/sys/unix"

	"github.com/cairndb/cairn/internal/base"
)

// Now is the node's monotonic clock: CLOCK_BOOTTIME, which also counts the time that the machine was suspended
// (Go's own monotonic clock does not). The only thing assumed of it is its rate.
func Now() base.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("this machine has no CLOCK_BOOTTIME: " + err.Error())
	}
	return base.Instant(ts.Nano())
}
