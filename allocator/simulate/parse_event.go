package simulate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// at reads TIME expect … or TIME EVENT ….
func (s *Scenario) at(words []string, line int) error {
	if len(words) < 2 {
		return errors.New("at what time, and what? at 10m fail n4")
	}
	at, err := duration(words[0])
	if err != nil {
		return err
	}
	if words[1] == "expect" {
		return s.expect(words[2:], Expect{At: at, line: line})
	}
	e := Event{At: at, Text: strings.Join(words[1:], " "), line: line}
	if err := e.parse(words[1], words[2:]); err != nil {
		return err
	}
	s.Events = append(s.Events, e)
	return nil
}

// then reads EVENT … or expect …, which come when all is at rest.
func (s *Scenario) then(words []string, line int) error {
	if len(words) == 0 {
		return errors.New("then what? then fail n4")
	}
	if words[0] == "expect" {
		return s.expect(words[1:], Expect{At: -1, Then: true, Before: len(s.Events), line: line})
	}
	e := Event{Then: true, Text: strings.Join(words, " "), line: line}
	if err := e.parse(words[0], words[1:]); err != nil {
		return err
	}
	s.Events = append(s.Events, e)
	return nil
}

var nodeVerbs = []NodeVerb{VerbFail, VerbRecover, VerbDrain, VerbUndrain, VerbCordon, VerbUncordon, VerbDecommission, VerbRecommission,
	VerbSlow, VerbWell}

func (e *Event) parse(word string, rest []string) (err error) {
	switch {
	case word == "add":
		e.Kind = EventAdd
		e.Add, err = parseNodes(rest)
		return err
	case slices.Contains(nodeVerbs, NodeVerb(word)):
		e.Kind, e.Verb = EventNodes, NodeVerb(word)
		if e.Who, err = selectors(rest); err == nil && len(e.Who) == 0 {
			err = fmt.Errorf("%s which nodes? n4, or zone=b", word)
		}
		return err
	case word == "restart" && len(rest) > 0 && rest[0] == "rolling":
		return e.rolling(rest[1:])
	case word == "hot" && len(rest) > 1 && rest[0] == "spot" && rest[1] == "wanders":
		return e.hot(rest[2:])
	case word == "load":
		return e.load(rest)
	case word == "keyspace" && len(rest) > 1:
		e.Kind, e.Keyspace = EventKeyspace, rest[0]
		if e.Set, err = settings(rest[1:]); err != nil {
			return err
		}
		for _, kv := range e.Set {
			if err := applyPlacement(&allocator.Placement{}, kv); err != nil {
				return err
			}
		}
		return nil
	case word == "policy" && len(rest) > 0:
		e.Kind = EventPolicy
		if e.Set, err = settings(rest); err != nil {
			return err
		}
		return applyPolicy(&allocator.Policy{}, e.Set)
	}
	return fmt.Errorf("%q is no event: give add, fail, recover, drain, undrain, cordon, uncordon, decommission, recommission, slow, well, "+
		"restart rolling, hot spot wanders, load, keyspace, policy or expect", strings.Join(append([]string{word}, rest...), " "))
}

func (e *Event) rolling(rest []string) (err error) {
	e.Kind, e.Down = EventRolling, 10*time.Second
	for _, w := range rest {
		if v, found := strings.CutPrefix(w, "down="); found {
			if e.Down, err = positive(v); err != nil {
				return err
			}
			continue
		}
		who, err := selectors([]string{w})
		if err != nil {
			return err
		}
		e.Who = append(e.Who, who...)
	}
	return nil
}

// hot reads every 1m over keyspace k share=0.3 for 20m; share and for may be left out.
func (e *Event) hot(rest []string) (err error) {
	e.Kind, e.Share = EventHot, 0.2
	for i := 0; i < len(rest) && err == nil; i++ {
		w, next := rest[i], ""
		if i+1 < len(rest) {
			next = rest[i+1]
		}
		switch {
		case w == "every":
			e.Every, err = positive(next)
			i++
		case w == "for":
			e.For, err = positive(next)
			i++
		case w == "over" && next == "keyspace" && i+2 < len(rest):
			e.Keyspace = rest[i+2]
			i += 2
		case strings.HasPrefix(w, "share="):
			if e.Share, err = number(strings.TrimPrefix(w, "share=")); err == nil && (e.Share <= 0 || e.Share > 100) {
				err = fmt.Errorf("%s: it is a share of the keyspace's load, above 0", w)
			}
		default:
			err = fmt.Errorf("%q is not understood here: hot spot wanders every 1m over keyspace k share=0.3 for 20m", w)
		}
	}
	if err == nil && (e.Every == 0 || e.Keyspace == "") {
		err = errors.New("a hot spot needs a pace and a keyspace: hot spot wanders every 1m over keyspace k")
	}
	return err
}

// load reads k doubles, k halves, k x 1.5.
func (e *Event) load(rest []string) (err error) {
	e.Kind = EventLoad
	switch {
	case len(rest) == 2 && rest[1] == "doubles":
		e.Factor = 2
	case len(rest) == 2 && rest[1] == "halves":
		e.Factor = 0.5
	case len(rest) == 3 && rest[1] == "x":
		e.Factor, err = number(rest[2])
	default:
		return errors.New("a load doubles, halves, or is multiplied: load k x 1.5")
	}
	if e.Keyspace = rest[0]; err == nil && (e.Factor < 0 || e.Factor > 1e6) {
		err = fmt.Errorf("a load x %s: it is from 0 to a million", rest[2])
	}
	return err
}

// selectors reads n4 and zone=b.
func selectors(words []string) (out []Selector, err error) {
	for _, w := range words {
		for _, w := range strings.Split(w, ",") {
			if key, value, found := strings.Cut(w, "="); found && key != "" && value != "" {
				out = append(out, Selector{Tier: allocator.Tier{Key: key, Value: value}})
				continue
			}
			id, err := nodeID(w)
			if err != nil {
				return nil, err
			}
			out = append(out, Selector{ID: id})
		}
	}
	return out, nil
}

// metrics are what can be expected; arg says whether a word follows, and which.
var metrics = map[string]string{
	"imbalance": "count, bytes, load or leaders", "violations": "", "unavailable": "", "under-replicated": "", "undiverse": "a tier",
	"moves": "", "transfers": "", "bytes": "", "rest": "", "twice": "", "pingpong": "", "refused": "", "fullness": "",
	"replicas": "a node", "leaders": "a node", "withheld": "a goal",
}

var dimensions = []string{"count", "bytes", "load", "leaders"}

// expect reads [worst|total] METRIC [ARG] OP VALUE [x bound].
func (s *Scenario) expect(words []string, x Expect) error {
	x.Text = strings.Join(words, " ")
	if len(words) > 0 && (words[0] == "worst" || words[0] == "total") {
		x.Scope, words = words[0], words[1:]
	}
	if len(words) < 3 {
		return errors.New("what is expected? expect imbalance count <= 1.05")
	}
	arg, known := metrics[words[0]]
	if !known {
		return fmt.Errorf("%q cannot be expected: give imbalance, violations, unavailable, under-replicated, undiverse, moves, transfers, bytes, "+
			"rest, twice, pingpong, refused, fullness, replicas, leaders or withheld", words[0])
	}
	x.Metric, words = words[0], words[1:]
	if arg != "" {
		x.Arg, words = words[0], words[1:]
	}
	if len(words) == 4 && words[2] == "x" && words[3] == "bound" && x.Metric == "moves" {
		x.Bound, words = true, words[:2]
	}
	if len(words) != 2 {
		return fmt.Errorf("%s is followed by a comparison and a value: expect %[1]s%s <= 1", x.Metric, prefixed(" ", arg))
	}
	x.Op = words[0]
	if !slices.Contains([]string{"<", "<=", "=", ">=", ">"}, x.Op) {
		return fmt.Errorf("%q is no comparison: give <, <=, =, >= or >", x.Op)
	}
	return s.addExpect(x, words[1])
}

func (s *Scenario) addExpect(x Expect, value string) (err error) {
	switch x.Metric {
	case "rest":
		var d time.Duration
		d, err = duration(value)
		x.Value = d.Seconds()
	case "bytes":
		var n int64
		n, err = size(value)
		x.Value = float64(n)
	case "imbalance":
		if !slices.Contains(dimensions, x.Arg) {
			return fmt.Errorf("%q is not something that has a balance: give %s", x.Arg, strings.Join(dimensions, ", "))
		}
		x.Value, err = number(value)
	case "replicas", "leaders":
		if _, err := nodeID(x.Arg); err != nil {
			return err
		}
		x.Value, err = number(value)
	case "withheld":
		if _, known := goalNames[x.Arg]; !known {
			return fmt.Errorf("%q is no goal of the planner", x.Arg)
		}
		x.Value, err = number(value)
	default:
		x.Value, err = number(value)
	}
	if x.Scope == "worst" && !slices.Contains([]string{"imbalance", "violations", "unavailable", "under-replicated"}, x.Metric) {
		return fmt.Errorf("of %s there is no worst: it is sampled of imbalance, violations, unavailable and under-replicated", x.Metric)
	}
	if x.Scope == "total" && !slices.Contains([]string{"moves", "transfers", "bytes", "twice"}, x.Metric) {
		return fmt.Errorf("of %s there is no total: it is counted of moves, transfers, bytes and twice", x.Metric)
	}
	if err == nil {
		s.Expects = append(s.Expects, x)
	}
	return err
}

var goalNames = map[string]allocator.Goal{
	"joint": allocator.GoalJoint, "quorum": allocator.GoalQuorum, "wanted": allocator.GoalWanted, "replace": allocator.GoalReplace,
	"drain": allocator.GoalDrain, "factor": allocator.GoalFactor, "constraint": allocator.GoalConstraint,
	"diversity": allocator.GoalDiversity, "balance": allocator.GoalBalance, "leader": allocator.GoalLeader, "split": allocator.GoalSplit,
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// Validate finds what is wrong with the whole: everything at once.
func (s *Scenario) Validate() error {
	var wrong []error
	bad := func(line int, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...)))
	}
	nodes := slices.Clone(s.Nodes)
	if len(nodes) == 0 {
		wrong = append(wrong, errors.New("there are no nodes: nodes 3 zone=a,b,c"))
	}
	if len(s.Keyspaces) == 0 && len(s.Ranges) == 0 {
		wrong = append(wrong, errors.New("there are no ranges: keyspace k ranges=100"))
	}
	if s.Step > s.Ask || s.Step > s.Sample {
		wrong = append(wrong, errors.New("a step is longer than ask or sample"))
	}
	for _, k := range s.Keyspaces {
		for _, id := range k.On {
			if !slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id }) {
				bad(k.line, "on=: there is no node n%d in the beginning", id)
			}
		}
	}
	last := time.Duration(0)
	for i, e := range s.Events {
		last = max(last, e.At)
		if i > 0 && !e.Then && e.At < s.Events[i-1].At {
			bad(e.line, "it is before line %d: events stand in the order of their times", s.Events[i-1].line)
		}
		nodes = append(nodes, e.Add...)
		for _, w := range e.Who {
			if !slices.ContainsFunc(nodes, func(n Node) bool { return w.selects(&n) }) {
				bad(e.line, "there is no such node at that time: %s", e.Text)
			}
		}
		if e.Keyspace != "" && !slices.ContainsFunc(s.Keyspaces, func(k Keyspace) bool { return k.Name == e.Keyspace }) {
			bad(e.line, "there is no keyspace %s", e.Keyspace)
		}
	}
	for _, x := range s.Expects {
		if last = max(last, x.At); s.For > 0 && x.At > s.For {
			bad(x.line, "it is after the end, %s", s.For)
		}
		if x.Metric == "replicas" || x.Metric == "leaders" {
			if id, _ := nodeID(x.Arg); !slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id }) {
				bad(x.line, "there is no node %s", x.Arg)
			}
		}
	}
	if len(nodes) > base.SimNodes {
		wrong = append(wrong, fmt.Errorf("a scenario has at most %d nodes", base.SimNodes))
	}
	thens := time.Duration(1)
	for _, e := range s.Events {
		thens += time.Duration(boolInt(e.Then))
	}
	if end := max(s.For, last+thens*base.SimAfter); end/s.Step > base.SimSteps {
		wrong = append(wrong, fmt.Errorf("%s in steps of %s: a run has at most %d steps", end, s.Step, base.SimSteps))
	}
	return errors.Join(wrong...)
}

// number the nodes: a node that is added gets the next id.
func (s *Scenario) number() {
	next := base.NodeID(1)
	for _, n := range s.Nodes {
		next = max(next, n.ID+1)
	}
	give := func(nodes []Node) {
		for i := range nodes {
			if nodes[i].ID == 0 {
				nodes[i].ID = next
				next++
			}
		}
	}
	give(s.Nodes)
	for i := range s.Events {
		give(s.Events[i].Add)
	}
}
