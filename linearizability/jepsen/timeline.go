package jepsen

import (
	"context"
	"sync"
	"time"
)

// marks are who led the clients' range, by asking from time to time: a row of changes. It is safe for concurrent use.
type marks struct {
	start time.Time

	mu  sync.Mutex
	row []LeaderMark
}

const (
	// leaderEvery is how often the leader is asked for: finer than the timeline shows an election, and no load.
	leaderEvery = 500 * time.Millisecond
	// leaderWait bounds one question: under a fault nobody may know.
	leaderWait = time.Second
)

func newMarks(start time.Time) *marks { return &marks{start: start} }

// watch asks until ctx ends. An error is an answer: nobody is known to lead.
func (m *marks) watch(ctx context.Context, leader func(context.Context) (int, error)) {
	tick := time.NewTicker(leaderEvery)
	defer tick.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, leaderWait)
		node, err := leader(ask)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			node = -1
		}
		m.note(time.Now(), node)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// note keeps an answer that is not the one before.
func (m *marks) note(at time.Time, node int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.row); n == 0 || m.row[n-1].Node != node {
		m.row = append(m.row, LeaderMark{At: at.Sub(m.start).Seconds(), Node: node})
	}
}

func (m *marks) all() []LeaderMark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]LeaderMark{}, m.row...)
}
