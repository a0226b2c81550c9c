package watch

import "sync/atomic"

// counts is what Counts tells, as it is kept.
type counts struct {
	streams, watches, behind                 atomic.Int64
	events, responses, pulls, closes, failed atomic.Uint64
}

// Counts is how many there are, and what there was since the start.
type Counts struct {
	Streams, Watches  int
	Behind            int    // streams whose clients have not read what waits for them
	Events, Responses uint64 // that were to be sent
	Pulls             uint64 // pages of changes that were read, or waited for
	Closes            uint64 // ranges that were asked to be closed
	Failed            uint64 // questions that had to be asked again
}

// Counts reads them.
func (w *Watches) Counts() Counts {
	c := &w.counts
	return Counts{
		Streams: int(c.streams.Load()), Watches: int(c.watches.Load()), Behind: int(c.behind.Load()),
		Events: c.events.Load(), Responses: c.responses.Load(),
		Pulls: c.pulls.Load(), Closes: c.closes.Load(), Failed: c.failed.Load(),
	}
}
