package client

import "time"

// instant is a moment of this machine's clocks.
type instant struct{ t time.Time }

func now() instant { return instant{time.Now()} }

// since is how long ago something was: by the monotonic clock or by the wall's, whichever has gone further. The first stands still
// while a machine sleeps, and the second may be set back.
func since(i instant) time.Duration {
	n := time.Now()
	return max(n.Sub(i.t), n.Round(0).Sub(i.t.Round(0)))
}

// after wakes its receiver once, after d; stop it when it is needed no more.
func after(d time.Duration) (c <-chan time.Time, stop func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}
