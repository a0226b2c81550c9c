package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/allocator/simulate"
)

// scenario is a large cluster that is at rest when the first event comes, and again before each further one.
const scenario = `
seed %d
deciders %d
nodes %d zone=z1..z%d
rate 64MB
slots 16
step 5s
ask 5s
sample 1m
window 2h
policy imbalance=%g moves-per-node=8 moves=4096 failed-after=1m failed-share=0.3
keyspace shards ranges=%d size=lognormal(16MB,1) load=lognormal(10,1)
then fail n1
then fail zone=z2
then add %d nodes zone=z1,z3..z%d
`

// events lets the simulator carry out what the planner decides after each event.
func (s *Suite) events() error {
	for _, deciders := range s.Deciders {
		text := fmt.Sprintf(scenario, s.Seed, deciders, s.Nodes, s.Zones, s.Imbalance, s.Ranges, s.Added, s.Zones)
		sc, err := simulate.Parse("scale", text)
		if err != nil {
			return err
		}
		began := time.Now()
		var full, took laps // the first pass of each decider is over all
		longest := ""
		asked := map[*allocator.Snapshot]bool{}
		r, err := simulate.Run(sc, func(sn *allocator.Snapshot, seed uint64, limit int) ([]allocator.Decision, []allocator.Withheld) {
			unseen := sn.Unseen()
			watch := start()
			decisions, withheld := allocator.Decide(sn, seed, limit)
			if !asked[sn] {
				asked[sn] = true
				full.lap(watch)
				return decisions, withheld
			}
			if took.lap(watch); took.isLongest() {
				longest = fmt.Sprintf("pass %d, of %d decisions, before which %d ranges were not looked at", len(took.cpu), len(decisions), unseen)
			}
			return decisions, withheld
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "\n%d decider(s), %s of simulated time in %s; aims: ratio 1.05, largest over mean 1.02 (several deciders: 1.10), none moved twice\n",
			deciders, time.Duration(r.Seconds)*time.Second, round(time.Since(began)))
		if err := s.print(r); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "full passes: %s\nlongest by CPU: %s\npasses: %s; ping-pong %d; worst: %d ranges without a quorum\n", &full, longest, &took, r.Total.PingPong, r.Worst.Unavailable)
	}
	return nil
}

func (s *Suite) print(r *simulate.Result) error {
	tw := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "event\tmoves\tlower bound\tratio\tmoved twice\tcount\tbytes\tload\tleaders\ttransfers\tat rest after")
	for _, p := range r.Events {
		ratio, rest := "-", (time.Duration(p.Rest) * time.Second).String()
		if p.Bound > 0 {
			ratio = fmt.Sprintf("%.3f", float64(p.Moves)/float64(p.Bound))
		}
		if !p.Resting {
			rest = "never"
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t%s\n", p.Event, p.Moves, p.Bound, ratio, p.Twice,
			p.Imbalance.Count, p.Imbalance.Bytes, p.Imbalance.Load, p.Imbalance.Leaders, p.Transfers, rest)
	}
	return tw.Flush()
}
