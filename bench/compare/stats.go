// Package compare makes the comparison: in which order blocks are run, what is measured in each, and how the figures of
// many blocks become one with its range. See README.md for the method and its reasons.
package compare

import "slices"

// Spread is the middle of some figures and their range.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// SpreadOf is the spread of some figures; the zero value for none.
func SpreadOf(figures []float64) Spread { return spreadOf(figures) }

// spreadOf is the zero value for no figures.
func spreadOf(figures []float64) Spread {
	if len(figures) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(figures))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{median, sorted[0], sorted[len(sorted)-1], len(sorted)}
}
