package simulate

import (
	"fmt"
	"strconv"
)

// expectAt checks what is expected at this time, before anything happens then.
func (c *cluster) expectAt() {
	for _, x := range c.s.Expects {
		if x.At >= 0 && x.At > c.now-c.s.Step && x.At <= c.now {
			c.result.Expected = append(c.result.Expected, c.checkOne(x))
		}
	}
}

// expectLast checks what is expected in the end.
func (c *cluster) expectLast() {
	for _, x := range c.s.Expects {
		if x.At > c.now || x.At < 0 && (!x.Then || x.Before == len(c.s.Events)) {
			c.result.Expected = append(c.result.Expected, c.checkOne(x))
		}
	}
}

// expectBefore checks what is expected before an event.
func (c *cluster) expectBefore(event int) {
	for _, x := range c.s.Expects {
		if x.Then && x.Before == event {
			c.result.Expected = append(c.result.Expected, c.checkOne(x))
		}
	}
}

func (c *cluster) checkOne(x Expect) Check {
	p := c.phases[len(c.phases)-1]
	c.measure(p)
	value, want := c.value(x, &p.Phase), x.Value
	out := Check{Line: x.line, Text: x.Text}
	if x.At >= 0 {
		out.Text = fmt.Sprintf("at %s: %s", seconds(x.At.Seconds()), x.Text)
	} else if x.Then && x.Before > 0 {
		out.Text = fmt.Sprintf("after %s: %s", c.s.Events[x.Before-1].Text, x.Text)
	}
	if out.Was = format(x, value); x.Bound {
		bound := p.Bound
		if x.Scope == "total" {
			bound = 0
			for _, p := range c.phases {
				bound += p.Bound
			}
		}
		want *= float64(bound)
		out.Was = fmt.Sprintf("%s, the bound is %d", out.Was, bound)
	}
	if x.Metric == "rest" && !p.Resting {
		out.Was = "it is not at rest"
		return out
	}
	out.OK = compare(value, x.Op, want)
	return out
}

func format(x Expect, v float64) string {
	switch x.Metric {
	case "rest":
		return seconds(v)
	case "bytes":
		return Bytes(int64(v))
	case "imbalance", "fullness":
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func compare(v float64, op string, want float64) bool {
	switch op {
	case "<":
		return v < want
	case "<=":
		return v <= want
	case "=":
		return v == want
	case ">=":
		return v >= want
	}
	return v > want
}

// value is what a metric is now.
func (c *cluster) value(x Expect, p *Phase) float64 {
	worst := x.Scope == "worst"
	switch x.Metric {
	case "imbalance":
		if worst {
			return c.worst.Imbalance.of(x.Arg)
		}
		return c.imbalance().of(x.Arg)
	case "violations":
		return either(worst, c.worst.Violations, c.breaking)
	case "unavailable":
		return either(worst, c.worst.Unavailable, c.unavailable)
	case "under-replicated":
		return either(worst, c.worst.Under, c.under)
	case "undiverse":
		return float64(c.undiverse(x.Arg))
	case "fullness":
		return c.fullness()
	case "rest":
		return p.Rest
	case "pingpong":
		return float64(c.pingpong)
	case "refused":
		return float64(c.refused)
	case "withheld":
		n := 0
		for _, h := range c.withheld() {
			n += h.Ranges * boolInt(h.Goal == x.Arg)
		}
		return float64(n)
	case "replicas", "leaders":
		id, _ := nodeID(x.Arg)
		if i, known := c.place[id]; known {
			return either(x.Metric == "leaders", c.nodes[i].leaders, c.nodes[i].count)
		}
		return 0
	}
	return c.counted(x, p)
}

// counted are the metrics of an event, or of the whole run.
func (c *cluster) counted(x Expect, p *Phase) float64 {
	total := x.Scope == "total"
	switch x.Metric {
	case "moves":
		return either(total, c.moved, p.Moves)
	case "transfers":
		return either(total, c.transfers, p.Transfers)
	case "twice":
		return either(total, c.twice, p.Twice)
	}
	return either(total, int(c.bytesMoved), int(p.Bytes))
}

func either(first bool, a, b int) float64 {
	if first {
		return float64(a)
	}
	return float64(b)
}
