package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/clusterpb"
)

// How nodes and ranges are named on the command line: n3 or 3, r104 or 104.

func parseID(text, letter, what string) (uint64, error) {
	id, err := strconv.ParseUint(strings.TrimPrefix(text, letter), 10, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%q is not the id of %s: give %s7, or 7", text, what, letter)
	}
	return id, nil
}

func parseNode(text string) (uint64, error)      { return parseID(text, "n", "a node") }
func parseRange(text string) (uint64, error)     { return parseID(text, "r", "a range") }
func parseOperation(text string) (uint64, error) { return parseID(text, "op", "an operation") }

// parseNodes reads node ids, all that are wrong at once.
func parseNodes(texts []string) (ids []uint64, err error) {
	var problems []error
	for _, text := range texts {
		id, err := parseNode(text)
		if err == nil && slices.Contains(ids, id) {
			err = fmt.Errorf("n%d is named twice", id)
		}
		if err != nil {
			problems = append(problems, err)
		}
		ids = append(ids, id)
	}
	if len(problems) > 0 {
		return nil, &usageError{problems}
	}
	return ids, nil
}

func nodeNames(ids []uint64) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = fmt.Sprintf("n%d", id)
	}
	return strings.Join(parts, ",")
}

// completeTimeout is how long a shell waits for its completions at most.
const completeTimeout = time.Second

// complete has the shell complete a verb's arguments with what list finds on the node at --host, or at what the environment says.
func complete(c *cobra.Command, e env, list func(context.Context, clusterpb.ClusterClient) ([]string, error)) {
	c.ValidArgsFunction = completer(e, list)
}

// completer does so for an argument or a flag. A node that does not answer completes nothing.
func completer(e env, list func(context.Context, clusterpb.ClusterClient) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		host := &hostFlag{address: defaultAddress}
		if v := e.getenv(hostVariable); v != "" {
			host.address = v
		}
		if f := c.Flags().Lookup("host"); f != nil && f.Changed {
			host.address = f.Value.String()
		}
		conn, err := host.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer func() { _ = conn.Close() }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), completeTimeout)
		defer cancel()
		all, err := list(ctx, clusterpb.NewClusterClient(conn))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(args, s) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func listNodes(ctx context.Context, cl clusterpb.ClusterClient) (out []string, err error) {
	resp, err := cl.Status(ctx, &clusterpb.StatusRequest{})
	for _, n := range resp.GetNodes() {
		out = append(out, fmt.Sprintf("n%d", n.Node.NodeId))
	}
	return out, err
}

func listRanges(ctx context.Context, cl clusterpb.ClusterClient) (out []string, err error) {
	resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
	for _, r := range resp.GetRanges() {
		out = append(out, fmt.Sprintf("r%d", r.Descriptor_.GetRangeId()))
	}
	return out, err
}

func listOperations(ctx context.Context, cl clusterpb.ClusterClient) (out []string, err error) {
	resp, err := cl.ListOperations(ctx, &clusterpb.ListOperationsRequest{})
	for _, op := range resp.GetOperations() {
		out = append(out, strconv.FormatUint(op.OpId, 10))
	}
	return out, err
}

// one reads a verb's only argument.
func one(args []string, parse func(string) (uint64, error)) (uint64, error) {
	id, err := parse(args[0])
	if err != nil {
		return 0, &usageError{[]error{err}}
	}
	return id, nil
}

// usageOf gathers what is wrong with a command line; nil if nothing is.
func usageOf(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	var out []error
	for _, err := range errs {
		var usage *usageError
		if errors.As(err, &usage) {
			out = append(out, usage.problems...)
		} else {
			out = append(out, err)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return &usageError{out}
}
