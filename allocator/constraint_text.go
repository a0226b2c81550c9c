package allocator

import (
	"fmt"
	"strconv"
	"strings"
)

// A constraint as people write it: a sign, what it is about, and of how many replicas.
//
//	+region=eu      all replicas are in eu
//	+region=eu:2    two of them are
//	-zone=a         none is in zone a
//	~ssd            nodes with the attribute ssd are preferred
//
// ParseConstraint and String are each other's inverse: what one writes, the other reads.

// ParseConstraint reads one constraint.
func ParseConstraint(text string) (Constraint, error) {
	var c Constraint
	switch {
	case strings.HasPrefix(text, "+"):
		c.Kind = Required
	case strings.HasPrefix(text, "-"):
		c.Kind = Forbidden
	case strings.HasPrefix(text, "~"):
		c.Kind = Preferred
	default:
		return c, fmt.Errorf("the constraint %q begins with none of + (required), - (forbidden) and ~ (preferred)", text)
	}
	about, count, counted := strings.Cut(text[1:], ":")
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > maxConstrained || strconv.Itoa(n) != count {
			return c, fmt.Errorf("the constraint %q: %q is not how many replicas it is about: give 1 to %d, or leave it out for all", text, count, maxConstrained)
		}
		if c.Kind == Forbidden {
			return c, fmt.Errorf("the constraint %q forbids some replicas and not others: forbid all (%s), or require some elsewhere", text, "-"+about)
		}
		c.Replicas = n
	}
	key, value, keyed := strings.Cut(about, "=")
	if keyed {
		c.Key, c.Value = key, value
	} else {
		c.Value = about
	}
	if keyed && !word(c.Key) || !word(c.Value) {
		return c, fmt.Errorf("the constraint %q is about nothing that a node can have: give a tier of its locality (+region=eu) or an attribute (+ssd)", text)
	}
	return c, nil
}

// maxConstrained bounds the replicas that one constraint counts: more than a range can have.
const maxConstrained = 99

// ParseConstraints reads several, separated by commas; of nothing come none.
func ParseConstraints(text string) ([]Constraint, error) {
	if text == "" {
		return nil, nil
	}
	var out []Constraint
	for part := range strings.SplitSeq(text, ",") {
		c, err := ParseConstraint(part)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// word says whether a name can stand in a constraint: nothing in it separates or counts, and it can be seen.
func word(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("=,:", r) })
}

// FormatConstraints writes several, separated by commas.
func FormatConstraints(cs []Constraint) string {
	parts := make([]string, len(cs))
	for i, c := range cs {
		parts[i] = c.String()
	}
	return strings.Join(parts, ",")
}
