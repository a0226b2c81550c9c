package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

// onNode gives a verb --host and -o, and runs it against the node there.
func onNode(c *cobra.Command, e env, timeout time.Duration, f func(ctx context.Context, cl clusterpb.ClusterClient, args []string, out printer) error) {
	host := addHost(c, e)
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		out, err := output.printer(e)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), timeout)
		defer cancel()
		conn, err := host.dial()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		err = f(ctx, clusterpb.NewClusterClient(conn), args, out)
		var usage *usageError
		var coded *exitError
		if err == nil || errors.As(err, &usage) || errors.As(err, &coded) {
			return err
		}
		return host.explain(strings.TrimPrefix(c.CommandPath(), "cairn "), err)
	}
}

// outputFlag is the -o of the verbs that print what they found.
type outputFlag struct{ format string }

func addOutput(c *cobra.Command) *outputFlag {
	o := &outputFlag{}
	c.Flags().StringVarP(&o.format, "output", "o", "table", "table or json")
	return o
}

func (o *outputFlag) printer(e env) (printer, error) {
	if o.format != "table" && o.format != "json" {
		return printer{}, &usageError{[]error{fmt.Errorf("-o %s is not known: give table or json", o.format)}}
	}
	return printer{e.out, o.format == "json"}, nil
}

// printer prints what a verb found, as a table or as JSON.
type printer struct {
	w    io.Writer
	json bool
}

// rows prints a table; as JSON the view.
func (p printer) rows(view any, rows [][]string) error {
	if p.json {
		return p.encode(view)
	}
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// value prints a sentence; as JSON the view.
func (p printer) value(view any, format string, args ...any) error {
	if p.json {
		return p.encode(view)
	}
	_, err := fmt.Fprintf(p.w, format, args...)
	return err
}

func (p printer) encode(view any) error {
	enc := json.NewEncoder(p.w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(view)
}
