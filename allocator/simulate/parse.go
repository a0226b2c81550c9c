package simulate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// defaults are a scenario's before its first line.
func defaults(name string) *Scenario {
	return &Scenario{
		Name: name, Seed: 1, Step: time.Second, Ask: time.Second, Sample: 10 * time.Second, Suspect: 3 * time.Second,
		CatchUp: 5 * time.Second, Window: 30 * time.Minute, Deciders: 1, Rate: base.SnapshotBytesPerSecond, Slots: 4, Limit: 1000,
		Policy: allocator.DefaultPolicy(),
	}
}

// parseErrors bounds the mistakes that are told at once.
const parseErrors = 20

// Parse reads a scenario. Every line that cannot be understood is told, with its number. What is wrong with the whole, such as an
// event for a node that does not exist, is found by Validate.
func Parse(name, text string) (*Scenario, error) {
	s := defaults(name)
	var wrong []error
	for i, line := range strings.Split(text, "\n") {
		if i >= base.SimStatements {
			wrong = append(wrong, fmt.Errorf("line %d: a scenario has at most %d lines", i+1, base.SimStatements))
			break
		}
		words, err := fields(line)
		if err == nil && len(words) > 0 {
			err = s.statement(words, i+1)
		}
		if err == nil {
			continue
		}
		if wrong = append(wrong, fmt.Errorf("line %d: %w", i+1, err)); len(wrong) == parseErrors {
			wrong = append(wrong, errors.New("and perhaps more"))
			break
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return s, nil
}

// fields cuts a line at its blanks, but not within quotes, which are taken away; # begins a comment.
func fields(line string) (out []string, err error) {
	var word strings.Builder
	in, quoted := false, false
	for _, c := range strings.TrimSuffix(line, "\r") {
		switch {
		case c == '"':
			quoted, in = !quoted, true
		case quoted:
			word.WriteRune(c)
		case c == '#':
			if in {
				out = append(out, word.String())
			}
			return out, nil
		case c == ' ' || c == '\t':
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quoted {
		return nil, errors.New("a quotation mark has no partner")
	}
	if in {
		out = append(out, word.String())
	}
	return out, nil
}

// durations, numbers: the statements that set one thing.
func (s *Scenario) durations() map[string]*time.Duration {
	return map[string]*time.Duration{"for": &s.For, "step": &s.Step, "ask": &s.Ask, "sample": &s.Sample, "suspect": &s.Suspect,
		"catchup": &s.CatchUp, "window": &s.Window}
}

func (s *Scenario) numbers() map[string]*int {
	return map[string]*int{"deciders": &s.Deciders, "slots": &s.Slots, "limit": &s.Limit}
}

func (s *Scenario) statement(words []string, line int) error {
	word, rest := words[0], words[1:]
	if d := s.durations()[word]; d != nil {
		return one(rest, func(v string) (err error) { *d, err = positive(v); return err })
	}
	if n := s.numbers()[word]; n != nil {
		return one(rest, func(v string) (err error) { *n, err = count(v, 1_000_000); return err })
	}
	switch word {
	case "seed":
		return one(rest, func(v string) (err error) {
			s.Seed, err = strconv.ParseUint(v, 10, 64)
			return err
		})
	case "rate":
		return one(rest, func(v string) (err error) { s.Rate, err = size(v); return err })
	case "policy":
		set, err := settings(rest)
		if err != nil {
			return err
		}
		s.policySet = append(s.policySet, set...)
		return applyPolicy(&s.Policy, set)
	case "nodes":
		nodes, err := parseNodes(rest)
		s.Nodes = append(s.Nodes, nodes...)
		if len(s.Nodes) > base.SimNodes {
			s.Nodes = nil
			return fmt.Errorf("a scenario has at most %d nodes", base.SimNodes)
		}
		return err
	case "keyspace":
		return s.keyspace(rest, line)
	case "at":
		return s.at(rest, line)
	case "then":
		return s.then(rest, line)
	case "expect":
		return s.expect(rest, Expect{At: -1, line: line})
	}
	return fmt.Errorf("%q is not known: a line begins with nodes, keyspace, policy, at, then, expect, seed, for, deciders, rate, slots, limit, "+
		"suspect, catchup, ask, step, sample or window", word)
}

func one(rest []string, set func(string) error) error {
	if len(rest) != 1 {
		return fmt.Errorf("one value is expected here, and there are %d", len(rest))
	}
	return set(rest[0])
}

// settings reads key=value words.
func settings(words []string) (out []setting, err error) {
	for _, w := range words {
		key, value, found := strings.Cut(w, "=")
		if !found || key == "" || value == "" {
			return nil, fmt.Errorf("%q is not of the form key=value", w)
		}
		out = append(out, setting{key, value})
	}
	return out, nil
}

// parseNodes reads N key=value,value ….
func parseNodes(words []string) ([]Node, error) {
	if len(words) == 0 {
		return nil, errors.New("how many nodes?")
	}
	n, err := count(words[0], base.SimNodes)
	if err != nil {
		return nil, err
	}
	if len(words) > 1 && (words[1] == "nodes" || words[1] == "node") {
		words = words[1:] // add 3 nodes …
	}
	set, err := settings(words[1:])
	if err != nil {
		return nil, err
	}
	nodes := make([]Node, n)
	for _, kv := range set {
		values, err := list(kv.value)
		if err != nil {
			return nil, err
		}
		for i := range nodes {
			if err := nodes[i].set(kv.key, values[i%len(values)]); err != nil {
				return nil, err
			}
		}
	}
	return nodes, nil
}

func (n *Node) set(key, value string) (err error) {
	switch key {
	case "disk":
		n.Disk, err = size(value)
	case "weight":
		n.Weight, err = number(value)
		if err == nil && n.Weight <= 0 {
			err = fmt.Errorf("a weight of %s: it must be above 0", value)
		}
	case "attributes":
		n.Attributes = nil
		if value != "-" {
			n.Attributes = strings.Split(value, "+")
		}
	default:
		n.Locality = append(n.Locality, allocator.Tier{Key: key, Value: value})
	}
	return err
}

// keyspace reads NAME key=value ….
func (s *Scenario) keyspace(words []string, line int) error {
	if len(words) == 0 || strings.Contains(words[0], "=") {
		return errors.New("a keyspace needs a name: keyspace k ranges=100")
	}
	for _, k := range s.Keyspaces {
		if k.Name == words[0] {
			return fmt.Errorf("keyspace %s is there already, in line %d", k.Name, k.line)
		}
	}
	k := Keyspace{Name: words[0], ID: base.KeyspaceID(base.FirstFreeID + len(s.Keyspaces)), Ranges: 1, Placement: s.Policy.Default, line: line,
		Size: Distribution{A: 64 << 20}, Load: Distribution{A: 10}}
	set, err := settings(words[1:])
	if err != nil {
		return err
	}
	for _, kv := range set {
		if err := k.set(kv); err != nil {
			return err
		}
	}
	total := k.Ranges
	for _, other := range s.Keyspaces {
		total += other.Ranges
	}
	if total > base.SimRanges {
		return fmt.Errorf("a scenario has at most %d ranges", base.SimRanges)
	}
	s.Keyspaces = append(s.Keyspaces, k)
	return nil
}

func (k *Keyspace) set(kv setting) (err error) {
	switch kv.key {
	case "ranges":
		k.Ranges, err = count(kv.value, base.SimRanges)
	case "size":
		k.Size, err = distribution(kv.value, func(v string) (float64, error) { n, err := size(v); return float64(n), err })
	case "load":
		k.Load, err = distribution(kv.value, number)
	case "noise":
		if k.Noise, err = number(kv.value); err == nil && (k.Noise < 0 || k.Noise > 1) {
			err = fmt.Errorf("noise=%s: it is a share, from 0 to 1", kv.value)
		}
	case "on":
		for _, w := range strings.Split(kv.value, ",") {
			id, err := nodeID(w)
			if err != nil {
				return err
			}
			k.On = append(k.On, id)
		}
	default:
		return applyPlacement(&k.Placement, kv)
	}
	return err
}

// applyPlacement sets one thing of where a keyspace is to be.
func applyPlacement(p *allocator.Placement, kv setting) (err error) {
	switch kv.key {
	case "replicas":
		p.Replicas, err = count(kv.value, base.MaxReplicas)
	case "constraints":
		p.Constraints, err = constraints(kv.value)
	case "leaders":
		p.Leaders, err = constraints(kv.value)
	case "failed-after":
		p.FailedAfter, err = positive(kv.value)
	default:
		err = fmt.Errorf("%q is not known of a keyspace: give ranges, replicas, size, load, noise, on, constraints, leaders, failed-after", kv.key)
	}
	return err
}

// applyPolicy sets what holds for the cluster.
func applyPolicy(p *allocator.Policy, set []setting) (err error) {
	for _, kv := range set {
		switch kv.key {
		case "moves-per-node":
			p.MovesPerNode, err = count(kv.value, 1_000_000)
		case "moves":
			p.Moves, err = count(kv.value, 1_000_000)
		case "imbalance":
			p.Imbalance, err = number(kv.value)
		case "balance":
			if kv.value != "on" && kv.value != "off" {
				return fmt.Errorf("balance=%s: it is on or off", kv.value)
			}
			p.NoBalance = kv.value == "off"
		case "failed-share":
			p.FailedShare, err = number(kv.value)
		case "failed-tier":
			p.FailedTier = kv.value
		case "replicas", "constraints", "leaders", "failed-after":
			err = applyPlacement(&p.Default, kv)
		default:
			err = fmt.Errorf("%q is not known of the policy: give moves-per-node, moves, imbalance, balance, failed-share, failed-tier, "+
				"failed-after, replicas, constraints, leaders", kv.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
