package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

// What cairn debug check answers its caller with, beside what every verb does.
const (
	exitWrong  = 3 // something is wrong
	exitUnseen = 4 // what was looked at is as it must be, and something could not be looked at
)

// checkTimeout bounds a check of a large cluster, which reads all of its data at a bounded rate.
const checkTimeout = 24 * time.Hour

// checkProgress is how often a check that takes long says how far it is.
const checkProgress = 2 * time.Second

func newDebugCheck(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Look whether the cluster is what it must be",
		Long: `Look whether the cluster is what it must be, while it is in use:

  tiling    each keyspace is covered exactly once, by the index's entries and by the ranges themselves
  index     what the index says of a range is what the range says of itself
  replicas  all replicas of a range hold the same versions, at one revision

The index follows the ranges within moments: a difference that is gone at a later look is counted, and is not wrong. Data is read at
a bounded rate on each node, so that a check may run beside a load; how far it is goes to the standard error.

It exits with 0 if all of it was looked at and is right, with 3 if something is wrong, and with 4 if something could not be looked
at: a node does not answer, or a range has no majority.`,
		Example: `  cairn debug check
  cairn debug check --keyspace shards --no-checksums
  cairn debug check -o json | jq '.findings[].what'`,
		Args: cobra.NoArgs,
	}
	ks := c.Flags().String("keyspace", "", "only the keyspace `NAME`: one that somebody made, default, or Cairn's own root, meta, sys")
	quick := c.Flags().Bool("no-checksums", false, "do not read the replicas' data")
	onNode(c, e, checkTimeout, func(ctx context.Context, cl clusterpb.ClusterClient, _ []string, out printer) error {
		stream, err := cl.Check(ctx, &clusterpb.CheckRequest{Keyspace: *ks, NoChecksums: *quick})
		if err != nil {
			return err
		}
		v := &checkView{Findings: []findingView{}, Unseen: []unseenView{}}
		last := time.Now()
		for v.Summary == nil {
			ev, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return errors.New("the check ended without a summary: run it again")
			case err != nil:
				return err
			}
			if p := ev.GetProgress(); p != nil && time.Since(last) >= checkProgress {
				last = time.Now()
				fmt.Fprintf(e.err, "%s: %d of %d\n", p.Doing, p.Done, p.Of)
			}
			v.take(ev)
		}
		if err := out.check(v); err != nil {
			return err
		}
		return v.verdict()
	})
	return c
}

// checkView is what a check found, as it is printed. Its JSON is an interface: fields are only ever added.
type checkView struct {
	Findings []findingView `json:"findings"`
	Unseen   []unseenView  `json:"unseen"`
	Summary  *summaryView  `json:"summary"`
}

type findingView struct {
	Part     string `json:"part"` // tiling, index or replicas
	Keyspace string `json:"keyspace"`
	Range    uint64 `json:"range"` // 0: of no one range
	Node     uint64 `json:"node"`  // 0: of no one node
	What     string `json:"what"`
	Here     string `json:"here"`
	There    string `json:"there"`
	Next     string `json:"next"`
}

type unseenView struct {
	Keyspace string `json:"keyspace"`
	Range    uint64 `json:"range"` // 0: all of a node
	Node     uint64 `json:"node"`  // 0: the whole range
	Replicas uint64 `json:"replicas"`
	Reason   string `json:"reason"`
}

type summaryView struct {
	Keyspaces    uint64 `json:"keyspaces"`
	IndexEntries uint64 `json:"index_entries"`
	Ranges       uint64 `json:"ranges"`
	Replicas     uint64 `json:"replicas"` // whose data was compared
	Versions     uint64 `json:"versions"` // of keys, each on all of its replicas
	Bytes        uint64 `json:"bytes"`
	Settled      uint64 `json:"settled"` // differences that were gone at a later look
	Redone       uint64 `json:"redone"`  // ranges that changed while they were compared
	Micros       uint64 `json:"micros"`
}

func (v *checkView) take(ev *clusterpb.CheckResponse) {
	switch b := ev.Body.(type) {
	case *clusterpb.CheckResponse_Finding:
		f := b.Finding
		v.Findings = append(v.Findings, findingView{Part: enumString("CHECK_PART_", f.Part.String()), Keyspace: f.Keyspace,
			Range: f.RangeId, Node: f.NodeId, What: f.What, Here: f.Here, There: f.There, Next: f.Next})
	case *clusterpb.CheckResponse_Unseen:
		u := b.Unseen
		v.Unseen = append(v.Unseen, unseenView{Keyspace: u.Keyspace, Range: u.RangeId, Node: u.NodeId, Replicas: u.Replicas, Reason: u.Reason})
	case *clusterpb.CheckResponse_Summary:
		s := b.Summary
		v.Summary = &summaryView{Keyspaces: s.Keyspaces, IndexEntries: s.IndexEntries, Ranges: s.Ranges, Replicas: s.Replicas, Versions: s.Versions,
			Bytes: s.Bytes, Settled: s.Settled, Redone: s.Redone, Micros: s.Micros}
	}
}

// verdict is nil if all was looked at and is right.
func (v *checkView) verdict() error {
	switch {
	case len(v.Findings) > 0:
		return &exitError{exitWrong, fmt.Sprintf("%s wrong", count(len(v.Findings), "thing is", "things are"))}
	case len(v.Unseen) > 0:
		return &exitError{exitUnseen, "nothing of what was looked at is wrong, and not all could be looked at"}
	}
	return nil
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func (p printer) check(v *checkView) error {
	if p.json {
		return p.encode(v)
	}
	var b strings.Builder
	for _, f := range v.Findings {
		b.WriteString("WRONG  " + place(f.Range, f.Keyspace, f.Node) + ": " + f.What + "\n")
		fmt.Fprintf(&b, "       here:  %s\n       there: %s\n       do:    %s\n", f.Here, f.There, f.Next)
	}
	for _, u := range v.Unseen {
		b.WriteString("NOT LOOKED AT  " + place(u.Range, u.Keyspace, u.Node))
		if u.Replicas > 0 {
			b.WriteString(", " + count(int(u.Replicas), "replica", "replicas"))
		}
		b.WriteString(": " + u.Reason + "\n")
	}
	s := v.Summary
	fmt.Fprintf(&b, "looked at %s, %s of the index and %s, in %s\n", count(int(s.Keyspaces), "keyspace", "keyspaces"), count(int(s.IndexEntries), "entry", "entries"),
		count(int(s.Ranges), "range", "ranges"), (time.Duration(s.Micros) * time.Microsecond).Round(10*time.Millisecond))
	if s.Replicas > 0 {
		fmt.Fprintf(&b, "compared the data of %s: %s of keys, %s\n", count(int(s.Replicas), "replica", "replicas"), count(int(s.Versions), "version", "versions"), byteCount(s.Bytes))
	}
	if s.Settled > 0 || s.Redone > 0 {
		fmt.Fprintf(&b, "%s gone at a later look; %s begun again, for the range changed meanwhile\n",
			count(int(s.Settled), "difference was", "differences were"), count(int(s.Redone), "comparison was", "comparisons were"))
	}
	if v.verdict() == nil {
		b.WriteString("nothing is wrong\n")
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// place is where something is: r104 of shards on n2.
func place(id uint64, keyspace string, node uint64) string {
	s := keyspace
	if id != 0 {
		s = fmt.Sprintf("r%d", id)
		if keyspace != "" {
			s += " of " + keyspace
		}
	}
	switch {
	case node != 0 && s == "":
		s = fmt.Sprintf("n%d", node)
	case node != 0:
		s += fmt.Sprintf(" on n%d", node)
	}
	return s
}

func byteCount(n uint64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
