package simulate

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cairndb/cairn/allocator"
)

// Result is what became of a scenario. Its JSON is an interface that scripts rely on: fields are only ever added.
type Result struct {
	Scenario string    `json:"scenario"`
	Seed     uint64    `json:"seed"`
	Seconds  float64   `json:"seconds"` // that were simulated
	Nodes    int       `json:"nodes"`   // at the end, with those that are gone
	Ranges   int       `json:"ranges"`
	Deciders int       `json:"deciders"`
	Events   []Phase   `json:"events"` // the first is the start
	Total    Totals    `json:"total"`
	Worst    Worst     `json:"worst"`
	Last     Sample    `json:"last"`
	Withheld []Held    `json:"withheld"` // what the planners said in the end that they cannot
	Expected []Check   `json:"expected"`
	Names    []string  `json:"node_names"`
	Weights  []float64 `json:"node_weights"`
	Samples  []Sample  `json:"samples"`
}

// Phase is what an event led to, until the next one.
type Phase struct {
	Event     string    `json:"event"`
	Seconds   float64   `json:"seconds"` // when
	Moves     int       `json:"moves"`   // replicas that came to a node
	Bound     int       `json:"bound"`   // the least that any planner could have moved, to be as balanced as this one was in the end
	Transfers int       `json:"transfers"`
	Bytes     int64     `json:"bytes"`
	Rest      float64   `json:"rest_seconds"` // from the event to the last that was done
	Resting   bool      `json:"resting"`      // and whether it was the last when the next event came
	Twice     int       `json:"moved_twice"`  // replicas that were put somewhere and taken away again
	Refused   int       `json:"refused"`
	Imbalance Imbalance `json:"imbalance"` // in the end
}

// Imbalance is the largest over the mean, each node by its weight.
type Imbalance struct {
	Count   float64 `json:"count"`
	Bytes   float64 `json:"bytes"`
	Load    float64 `json:"load"`
	Leaders float64 `json:"leaders"`
}

func (i Imbalance) of(dimension string) float64 {
	return map[string]float64{"count": i.Count, "bytes": i.Bytes, "load": i.Load, "leaders": i.Leaders}[dimension]
}

// Totals are of the whole run.
type Totals struct {
	Moves     int   `json:"moves"`
	Bound     int   `json:"bound"`
	Transfers int   `json:"transfers"`
	Bytes     int64 `json:"bytes"`
	Twice     int   `json:"moved_twice"`
	PingPong  int   `json:"pingpong"`
	Refused   int   `json:"refused"`
}

// Worst is the worst of any step.
type Worst struct {
	Imbalance   Imbalance `json:"imbalance"`
	Violations  int       `json:"violations"`
	Unavailable int       `json:"unavailable"`
	Under       int       `json:"under_replicated"`
}

// Sample is how the cluster was at a time.
type Sample struct {
	Seconds     float64      `json:"seconds"`
	Moves       int          `json:"moves"` // so far
	UnderWay    int          `json:"under_way"`
	Bytes       int64        `json:"bytes"` // moved so far
	Violations  int          `json:"violations"`
	Unavailable int          `json:"unavailable"`
	Under       int          `json:"under_replicated"`
	Fullness    float64      `json:"fullness"` // of the fullest disk
	Imbalance   Imbalance    `json:"imbalance"`
	PerNode     []NodeSample `json:"per_node,omitempty"`
}

// NodeSample is what a node holds. Dead nodes hold what the descriptors say.
type NodeSample struct {
	Count   int     `json:"count"`
	Leaders int     `json:"leaders"`
	Bytes   int64   `json:"bytes"`
	Load    float64 `json:"load"`
	Counts  bool    `json:"counts"` // the load is to be spread over it
}

// Held is what a planner withholds.
type Held struct {
	Goal   string `json:"goal"`
	Reason string `json:"reason"`
	Ranges int    `json:"ranges"`
}

// Check is an expectation and what was.
type Check struct {
	Line int    `json:"line"`
	Text string `json:"expected"`
	Was  string `json:"was"`
	OK   bool   `json:"ok"`
}

// OK says whether all was as expected.
func (r *Result) OK() bool {
	return !slices.ContainsFunc(r.Expected, func(c Check) bool { return !c.OK })
}

// finish makes the result.
func (c *cluster) finish() *Result {
	c.close()
	r := c.result
	r.Scenario, r.Seed, r.Seconds = c.s.Name, c.s.Seed, c.now.Seconds()
	r.Nodes, r.Ranges, r.Deciders = len(c.nodes), len(c.groups), len(c.deciders)
	for _, p := range c.phases {
		r.Events = append(r.Events, p.Phase)
		r.Total.Bound += p.Bound
	}
	r.Total = Totals{Moves: c.moved, Bound: r.Total.Bound, Transfers: c.transfers, Bytes: c.bytesMoved, Twice: c.twice,
		PingPong: c.pingpong, Refused: c.refused}
	r.Worst, r.Samples, r.Last = c.worst, c.samples, c.look()
	r.Withheld = c.withheld()
	for i := range c.nodes {
		r.Names = append(r.Names, nodeName(&c.nodes[i].Node))
		r.Weights = append(r.Weights, c.nodes[i].weight())
	}
	return r
}

// withheld adds up what the planners withhold.
func (c *cluster) withheld() (out []Held) {
	for d := range c.deciders {
		for _, w := range c.deciders[d].withheld {
			goal := goalName(w.Goal)
			i := slices.IndexFunc(out, func(h Held) bool { return h.Goal == goal && h.Reason == w.Reason })
			if i < 0 {
				i, out = len(out), append(out, Held{Goal: goal, Reason: w.Reason})
			}
			out[i].Ranges += max(1, w.Count)
		}
	}
	return out
}

func goalName(g allocator.Goal) string {
	for name, goal := range goalNames {
		if goal == g {
			return name
		}
	}
	return "none"
}

// nodeName is n4 region=eu zone=a.
func nodeName(n *Node) string {
	name := fmt.Sprintf("n%d", n.ID)
	for _, t := range n.Locality {
		name += " " + t.Key + "=" + t.Value
	}
	return name
}

// Print writes the result for people.
func (r *Result) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %d nodes, %d ranges, %s, seed %d, %s\n\n", r.Scenario, r.Nodes, r.Ranges,
		numbered(r.Deciders, "decider"), r.Seed, seconds(r.Seconds))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "AT\tEVENT\tMOVES\tBOUND\tRATIO\tBYTES\tLEADERS\tAT REST\tIMBALANCE count\tbytes\tload\tleaders")
	for _, p := range r.Events {
		rest := seconds(p.Rest)
		if !p.Resting {
			rest = "no"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%s\t%.3f\t%.3f\t%.3f\t%.3f\n", seconds(p.Seconds), p.Event, p.Moves, p.Bound,
			ratio(p.Moves, p.Bound), Bytes(p.Bytes), p.Transfers, rest, p.Imbalance.Count, p.Imbalance.Bytes, p.Imbalance.Load, p.Imbalance.Leaders)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nRanges that break a constraint: %d (worst %d); without a quorum: %d (%d); with too few live replicas: %d (%d).\n",
		r.Last.Violations, r.Worst.Violations, r.Last.Unavailable, r.Worst.Unavailable, r.Last.Under, r.Worst.Under)
	fmt.Fprintf(w, "%s that came back to where it was, %d moved twice, %s refused.\n", numbered(r.Total.PingPong, "replica"), r.Total.Twice,
		numbered(r.Total.Refused, "reservation"))
	for _, h := range r.Withheld {
		fmt.Fprintf(w, "Withheld (%s), %s: %s\n", h.Goal, numbered(h.Ranges, "range"), h.Reason)
	}
	if len(r.Expected) > 0 {
		fmt.Fprintln(w)
	}
	for _, x := range r.Expected {
		verdict := "as expected"
		if !x.OK {
			verdict = "NOT AS EXPECTED"
		}
		fmt.Fprintf(w, "%s: %s: %s (line %d)\n", verdict, x.Text, x.Was, x.Line)
	}
	return nil
}

func numbered(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func ratio(moves, bound int) string {
	if bound == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", float64(moves)/float64(bound))
}

func seconds(s float64) string {
	text := (time.Duration(math.Round(s)) * time.Second).String()
	if short := strings.TrimSuffix(text, "m0s"); short != text {
		text = short + "m"
	}
	if short := strings.TrimSuffix(text, "h0m"); short != text {
		text = short + "h"
	}
	return text
}

// Bytes is a size for people.
func Bytes(n int64) string {
	for _, u := range units {
		if float64(n) >= u.bytes && u.bytes > 1 {
			return fmt.Sprintf("%.1f %s", float64(n)/u.bytes, u.suffix)
		}
	}
	return fmt.Sprintf("%d B", n)
}
