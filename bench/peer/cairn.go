package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Cairn is the product's binary at Path, with its defaults but for what Extra says.
type Cairn struct {
	Path    string
	Profile bool     // serve profiles
	Extra   []string // further flags
}

// Binary implements System.
func (c Cairn) Binary() string { return c.Path }

// Args implements System.
func (c Cairn) Args(l Layout, i int) []string {
	args := []string{
		"start", "--store", l.Store[i], "--listen", l.Client[i], "--advertise", l.Client[i],
		"--join", strings.Join(l.Client[:], ","), "--bootstrap-expect", fmt.Sprint(Nodes),
	}
	if c.Profile {
		args = append(args, "--pprof", l.Peer[i]) // all else of a node is on one address
	}
	return append(args, c.Extra...)
}

// JoinArgs implements Joins.
func (c Cairn) JoinArgs(l Layout, address, store string) []string {
	args := []string{"start", "--store", store, "--listen", address, "--advertise", address, "--join", strings.Join(l.Client[:], ",")}
	return append(args, c.Extra...)
}

// ProfileURL implements System.
func (c Cairn) ProfileURL(l Layout, i int) string {
	return "http://" + l.Peer[i] + "/debug/pprof/profile"
}

// Ready implements System: a cluster that has just been made serves from one replica for a moment, and would sync less
// than its peer until the others are voters.
func (c Cairn) Ready(ctx context.Context, l Layout) error {
	if err := readEverywhere(ctx, l); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.Path, "status", "--ranges", "-o", "json", "--host", l.Client[0]).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return fmt.Errorf("cairn status: %w", err)
	}
	return allVoters(out)
}

// Leader implements System.
func (c Cairn) Leader(ctx context.Context, l Layout) (int, error) {
	for _, host := range l.Client {
		out, err := exec.CommandContext(ctx, c.Path, "status", "--ranges", "-o", "json", "--host", host).Output()
		if err != nil {
			continue // it is down, or cut off
		}
		var st struct {
			Ranges []struct {
				Keyspace string
				Leader   struct{ Address string }
			}
		}
		if err := json.Unmarshal(out, &st); err != nil {
			return 0, fmt.Errorf("cairn status: %w", err)
		}
		for _, r := range st.Ranges {
			if i := slices.Index(l.Client[:], r.Leader.Address); r.Keyspace == "default" && i >= 0 {
				return i, nil
			}
		}
	}
	return 0, errors.New("no node knows a leader")
}

// allVoters checks that every range has a voter on each node.
func allVoters(status []byte) error {
	var s struct {
		Ranges []struct {
			Keyspace string
			Replicas []struct{ Role string }
		}
	}
	if err := json.Unmarshal(status, &s); err != nil {
		return fmt.Errorf("cairn status: %w", err)
	}
	if len(s.Ranges) == 0 {
		return errors.New("cairn status shows no range")
	}
	for _, r := range s.Ranges {
		voters := 0
		for _, replica := range r.Replicas {
			if replica.Role == "voter" {
				voters++
			}
		}
		if voters != Nodes {
			return fmt.Errorf("the range of keyspace %s has %d voters and not %d", r.Keyspace, voters, Nodes)
		}
	}
	return nil
}

// Syncs implements System.
func (c Cairn) Syncs(ctx context.Context, l Layout, i int) (float64, bool, error) {
	out, err := exec.CommandContext(ctx, c.Path, "debug", "metrics", "-o", "json", "--host", l.Client[i]).Output()
	if err != nil {
		return 0, false, fmt.Errorf("cairn debug metrics: %w", err)
	}
	var m struct{ Syncs float64 }
	if err := json.Unmarshal(out, &m); err != nil {
		return 0, false, fmt.Errorf("cairn debug metrics: %w", err)
	}
	return m.Syncs, true, nil
}
