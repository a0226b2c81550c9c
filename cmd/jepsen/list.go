package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/jepsen"
	"github.com/cairndb/cairn/linearizability/workloads"
)

// listed is what list prints. Its JSON is an interface: fields are only ever added.
type listed struct {
	Nemeses   []listedNemesis  `json:"nemeses"`
	Workloads []listedWorkload `json:"workloads"`
	Missing   []listedMissing  `json:"missing"` // capabilities that some nemesis needs and this machine lacks
}

type listedNemesis struct {
	Name  string   `json:"name"`
	Class string   `json:"class"`
	About string   `json:"about"`
	Needs []string `json:"needs"`
	Able  bool     `json:"able"` // this machine can do it
}

type listedWorkload struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

type listedMissing struct {
	Capability string `json:"capability"`
	Why        string `json:"why"`
}

func newList(out io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the nemeses and the workloads, and what this machine lacks for them",
		Example: `  jepsen list
  jepsen list -o json | jq -r '.nemeses[] | select(.able) | .name'`,
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		l := list(jepsen.Missing())
		if *output == "json" {
			return printJSON(out, l)
		}
		return l.print(out)
	}
	return c
}

func list(missing map[jepsen.Capability]string) *listed {
	l := &listed{}
	said := make(map[jepsen.Capability]bool)
	for _, n := range jepsen.AllNemeses() {
		row := listedNemesis{Name: n.Name, Class: n.Class, About: n.About, Able: true}
		for _, need := range n.Needs {
			row.Needs = append(row.Needs, string(need))
			why, lacks := missing[need]
			if !lacks {
				continue
			}
			row.Able = false
			if !said[need] {
				said[need] = true
				l.Missing = append(l.Missing, listedMissing{string(need), why})
			}
		}
		l.Nemeses = append(l.Nemeses, row)
	}
	for _, w := range workloads.Kinds() {
		l.Workloads = append(l.Workloads, listedWorkload{w.Name, w.About})
	}
	return l
}

func (l *listed) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NEMESIS\tCLASS\tHERE\tWHAT IT DOES")
	for _, n := range l.Nemeses {
		here := "yes"
		if !n.Able {
			here = "no: " + strings.Join(n.Needs, ", ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.Class, here, n.About)
	}
	fmt.Fprintln(w, "\nWORKLOAD\tWHAT IT DOES")
	for _, k := range l.Workloads {
		fmt.Fprintf(w, "%s\t%s\n", k.Name, k.About)
	}
	if len(l.Missing) > 0 {
		fmt.Fprintln(w, "\nNOT HERE\tWHY")
		for _, m := range l.Missing {
			fmt.Fprintf(w, "%s\t%s\n", m.Capability, m.Why)
		}
	}
	return w.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
