package closed

import "time"

// Report is what one run found. Rates count the operations that ended well while it was counting; latencies are of
// the operations that began then, those that ended later included, so that the slowest are not lost.
type Report struct {
	Ops        int           `json:"ops"`
	Seconds    float64       `json:"seconds"`
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	Max        time.Duration `json:"max_ns"`
	Errors     int           `json:"errors"`
	FirstError string        `json:"first_error,omitempty"`
}

// Rate is operations per second.
func (r Report) Rate() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.Ops) / r.Seconds
}

// Event is what a run tells while it goes on; as a line of JSON it is how a measuring process speaks to the driver.
// Begin and End mark the time that is counted, for whoever reads other counters; the last event carries the report.
type Event struct {
	Event  string  `json:"event"`
	Report *Report `json:"report,omitempty"`
}

// The events, in their order.
const (
	Begin = "begin"
	End   = "end"
	Done  = "done"
)
