package jepsen

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// A run is a row of stages. Each has workloads on keys of their own, clients that begin and end with it, and a history
// that is checked when it has ended, so that memory is bounded by a stage and not by the run. Stage 0 is without faults.
type stage struct {
	Number int
	Name   string // none, a nemesis, or mix
	Class  string // F01 … F16; several are joined by +; empty without faults
	Rounds []round
	Rest   time.Duration // quiet at the end, after the last recovery, at least; without rounds: all of the stage
	Length time.Duration // of all of it; what recoveries did not need is quiet as well
}

// round is one bout of unwellness: quiet, then the nemeses begin one after the other, hold, and end in the same order.
type round struct {
	Quiet   time.Duration
	Nemeses []Nemesis
	Hold    time.Duration
}

// Bounds of a stage. The least lets elections and a client's time-out happen; the most keeps a history small.
const (
	stageLeast = 10 * time.Second
	stageMost  = time.Minute
	holdLeast  = 500 * time.Millisecond
	holdMost   = 12 * time.Second
	// quietShare is the part of a stage that lies before its faults, and again after them.
	quietShare = 5
	// roundMost is how much of a stage one round takes at most: longer stages have several.
	roundMost = 12 * time.Second
)

// plan draws the stages of a run. The same seed and nemeses give the same plan. Without mix each nemesis has a stage, in a
// drawn order; what time is left over goes to pairs of them. With mix all of it does. Nemeses that there is no time for are
// returned as skipped.
func plan(nemeses []Nemesis, length time.Duration, mix bool, seed uint64) (stages []stage, skipped []Skip) {
	r := base.NewRand(seed)
	shares := time.Duration(len(nemeses) + 2) // the stage without faults, and a pair
	if len(nemeses) == 0 {
		shares = 1
	}
	each := min(stageMost, max(stageLeast, length/shares))
	stages = []stage{{Name: nemesisNone, Rest: each}}
	left := length - each
	if !mix {
		for _, n := range shuffled(r, nemeses) {
			if left < each {
				skipped = append(skipped, Skip{n.Name, fmt.Sprintf("no time: all of them take %s", each*shares)})
				continue
			}
			stages = append(stages, draw(r, []Nemesis{n}, each))
			left -= each
		}
	}
	for ; left >= each; left -= each {
		if len(nemeses) == 0 {
			stages = append(stages, stage{Name: nemesisNone, Rest: each, Length: each})
			continue
		}
		stages = append(stages, draw(r, pair(r, nemeses), each))
	}
	for i := range stages {
		stages[i].Number = i
	}
	return stages, skipped
}

// draw makes one stage of a given length for nemeses that act at once.
func draw(r *base.Rand, nemeses []Nemesis, length time.Duration) stage {
	s := stage{Name: names(nemeses), Class: classes(nemeses), Length: length}
	rest := length / quietShare
	count := max(1, int((length-rest)/roundMost))
	per := (length - rest) / time.Duration(count)
	for range count {
		quiet := per / quietShare
		// Half of the time is for recovery, so that a stage does not last longer than it should.
		most := min(holdMost, max(holdLeast, (per-quiet)/2))
		hold := holdLeast + time.Duration(r.Int63n(int64(most-holdLeast)+1))
		s.Rounds = append(s.Rounds, round{Quiet: quiet, Nemeses: nemeses, Hold: hold})
	}
	s.Rest = rest
	return s
}

// pair draws two nemeses of different classes, or one if there are no two.
func pair(r *base.Rand, nemeses []Nemesis) []Nemesis {
	order := shuffled(r, nemeses)
	for _, other := range order[1:] {
		if other.Class != order[0].Class {
			return []Nemesis{order[0], other}
		}
	}
	return order[:1]
}

func shuffled(r *base.Rand, in []Nemesis) []Nemesis {
	out := slices.Clone(in)
	for i := len(out) - 1; i > 0; i-- {
		j := int(r.Int63n(int64(i + 1)))
		out[i], out[j] = out[j], out[i]
	}
	return out
}

func names(nemeses []Nemesis) string {
	var out []string
	for _, n := range nemeses {
		out = append(out, n.Name)
	}
	return strings.Join(out, "+")
}

func classes(nemeses []Nemesis) string {
	var out []string
	for _, n := range nemeses {
		out = append(out, n.Class)
	}
	return strings.Join(out, "+")
}

// Skip is a nemesis that this machine cannot do.
type Skip struct {
	Nemesis string `json:"nemesis"`
	Why     string `json:"why"`
}

// choose finds the nemeses that are asked for, by name or class; "all" means all of them, "none" nothing. What is not
// known is an error that names what is.
func choose(all []Nemesis, asked []string) ([]Nemesis, error) {
	var out []Nemesis
	var unknown []string
	for _, a := range asked {
		found := a == nemesisNone
		for _, n := range all {
			if a != "all" && a != n.Name && a != n.Class {
				continue
			}
			found = true
			if !slices.ContainsFunc(out, func(o Nemesis) bool { return o.Name == n.Name }) {
				out = append(out, n)
			}
		}
		if !found {
			unknown = append(unknown, a)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("no nemesis or class is named %s: give all, none, or some of %s",
			strings.Join(unknown, ", "), strings.Join(known(all), ", "))
	}
	return out, nil
}

func known(all []Nemesis) []string {
	var out []string
	for _, n := range all {
		if !slices.Contains(out, n.Class) {
			out = append(out, n.Class)
		}
	}
	slices.Sort(out)
	for _, n := range all {
		out = append(out, n.Name)
	}
	return out
}

// able parts nemeses into those that this machine can do and those that are skipped. missing says why it lacks a
// capability; a capability that it has is not in it.
func able(asked []Nemesis, missing map[Capability]string) (can []Nemesis, skipped []Skip) {
	for _, n := range asked {
		var why []string
		for _, c := range n.Needs {
			if reason, lacks := missing[c]; lacks {
				why = append(why, string(c)+": "+reason)
			}
		}
		if len(why) > 0 {
			skipped = append(skipped, Skip{n.Name, strings.Join(why, "; ")})
			continue
		}
		can = append(can, n)
	}
	return can, skipped
}
