package sim

import "fmt"

// What is noted in the hash of a run. Everything that happens is noted, whether or not a trace is written.
const (
	notePass = iota + 1
	noteAppend
	noteApply
	noteSend
	noteArrive
	noteSync
	noteRole
	noteStart
	noteEnd
	noteInvoke
	noteReturn
	noteFault
	noteSnapshot
	noteChecksum
	noteWatch
)

// note puts what happened into the run's hash. The arguments say all of it that another run could have otherwise.
func (w *world) note(what uint64, args ...uint64) {
	h := mix(w.hash ^ uint64(w.now))
	h = mix(h ^ what)
	for _, a := range args {
		h = mix(h ^ a)
	}
	w.hash = h
}

// mix is the finaliser of splitmix64.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// tracing says whether a trace is written: its text costs more than the run.
func (w *world) tracing() bool { return w.trace != nil }

// tracef writes a line of the trace. Callers with costly arguments ask tracing first.
func (w *world) tracef(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%12.6f %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}
