package simulate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// longest bounds every time in a scenario; the steps of a run are bounded by Validate.
const longest = 366 * 24 * time.Hour

func duration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > longest {
		return 0, fmt.Errorf("%q is no time: write 90s, 10m or 1h30m", v)
	}
	return d, nil
}

func positive(v string) (time.Duration, error) {
	d, err := duration(v)
	if err == nil && d < time.Millisecond {
		err = fmt.Errorf("%q is too short a time", v)
	}
	return d, err
}

func number(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || math.Abs(f) > 1e15 {
		return 0, fmt.Errorf("%q is no number", v)
	}
	return f, nil
}

func count(v string, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", v, most)
	}
	return n, nil
}

var units = []struct {
	suffix string
	bytes  float64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}, {"", 1}}

// size reads 64MB; the units are powers of 1,024.
func size(v string) (int64, error) {
	for _, u := range units {
		digits, found := strings.CutSuffix(v, u.suffix)
		if !found {
			continue
		}
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(f >= 0) || f*u.bytes > 1<<60 {
			break
		}
		return int64(f * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is no size: write 64MB, 1.5GB or 1TB", v)
}

func nodeID(v string) (base.NodeID, error) {
	digits, found := strings.CutPrefix(v, "n")
	n, err := strconv.ParseUint(digits, 10, 63)
	if !found || err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no node: write n4", v)
	}
	return base.NodeID(n), nil
}

// listLength bounds a..b.
const listLength = 10_000

// list reads a,b,c, with a..c and z1..z3 in it.
func list(v string) (out []string, err error) {
	for _, w := range strings.Split(v, ",") {
		from, to, found := strings.Cut(w, "..")
		if !found {
			if w == "" {
				return nil, fmt.Errorf("%q: a value is empty", v)
			}
			out = append(out, w)
			continue
		}
		values, err := span(from, to)
		if err != nil {
			return nil, err
		}
		out = append(out, values...)
	}
	if len(out) > listLength {
		return nil, fmt.Errorf("%q is more than %d values", v, listLength)
	}
	return out, nil
}

func span(from, to string) (out []string, err error) {
	if len(from) == 1 && len(to) == 1 && from[0] >= 'a' && to[0] <= 'z' && from[0] <= to[0] {
		for c := from[0]; c <= to[0]; c++ {
			out = append(out, string(rune(c)))
		}
		return out, nil
	}
	prefix := strings.TrimRight(from, "0123456789")
	low, lowErr := strconv.Atoi(from[len(prefix):])
	high, highErr := strconv.Atoi(strings.TrimPrefix(to, prefix))
	if lowErr != nil || highErr != nil || high < low || high-low >= listLength {
		return nil, fmt.Errorf("%q is not understood: write a..e or z1..z10", from+".."+to)
	}
	for i := low; i <= high; i++ {
		out = append(out, prefix+strconv.Itoa(i))
	}
	return out, nil
}

// constraints reads "+region=eu:2 -zone=a ~ssd".
func constraints(v string) (out []allocator.Constraint, err error) {
	for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ';' }) {
		c := allocator.Constraint{}
		switch w[0] {
		case '+':
			c.Kind = allocator.Required
		case '-':
			c.Kind = allocator.Forbidden
		case '~':
			c.Kind = allocator.Preferred
		default:
			return nil, fmt.Errorf("%q is no constraint: it begins with + (required), - (forbidden) or ~ (preferred)", w)
		}
		what, replicas, counted := strings.Cut(w[1:], ":")
		if counted {
			if c.Replicas, err = count(replicas, base.MaxReplicas); err != nil {
				return nil, err
			}
		}
		key, value, tier := strings.Cut(what, "=")
		if c.Value = key; tier {
			c.Key, c.Value = key, value
		}
		if c.Value == "" || tier && c.Key == "" {
			return nil, fmt.Errorf("%q is no constraint: write +region=eu or ~ssd", w)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no constraint: write constraints=\"+region=eu:2 -zone=a\"")
	}
	return out, nil
}

// Distribution is how sizes or loads of ranges are drawn.
type Distribution struct {
	Kind distributionKind
	A, B float64
}

type distributionKind uint8

const (
	fixed     distributionKind = iota // A
	uniform                           // from A to B
	lognormal                         // the median is A, the logarithm's deviation B
	zipf                              // A altogether, the i-th largest of them as 1/i^B
)

func distribution(v string, value func(string) (float64, error)) (d Distribution, err error) {
	name, args, found := strings.Cut(strings.TrimSuffix(v, ")"), "(")
	if !found {
		if d.A, err = value(v); err == nil && d.A < 0 {
			err = fmt.Errorf("%q is below 0", v)
		}
		return d, err
	}
	first, second, both := strings.Cut(args, ",")
	kinds := map[string]distributionKind{"uniform": uniform, "lognormal": lognormal, "zipf": zipf}
	if d.Kind = kinds[name]; d.Kind == fixed || !both || !strings.HasSuffix(v, ")") {
		return d, fmt.Errorf("%q is not known: write a number, uniform(LOW,HIGH), lognormal(MEDIAN,SIGMA) or zipf(TOTAL,EXPONENT)", v)
	}
	if d.A, err = value(first); err != nil {
		return d, err
	}
	if d.Kind == uniform {
		d.B, err = value(second)
	} else if d.B, err = number(second); err == nil && (d.B < 0 || d.B > 10) {
		err = fmt.Errorf("%q: the second value is from 0 to 10", v)
	}
	if err == nil && (d.A < 0 || d.Kind == uniform && d.B < d.A) {
		err = fmt.Errorf("%q: nothing can be drawn from that", v)
	}
	return d, err
}

// draw makes n values.
func (d Distribution) draw(n int, r *base.Rand) []float64 {
	out := make([]float64, n)
	sum := 0.0
	for i := range out {
		switch d.Kind {
		case uniform:
			out[i] = d.A + (d.B-d.A)*unit(r)
		case lognormal:
			out[i] = d.A * math.Exp(d.B*normal(r))
		case zipf:
			out[i] = math.Pow(float64(i+1), -d.B)
			sum += out[i]
		default:
			out[i] = d.A
		}
	}
	if d.Kind != zipf {
		return out
	}
	for i := range out {
		out[i] *= d.A / sum
	}
	for i := n - 1; i > 0; i-- {
		j := r.Int63n(int64(i + 1))
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// unit draws from [0, 1).
func unit(r *base.Rand) float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// normal draws from the normal distribution (Box and Muller 1958).
func normal(r *base.Rand) float64 {
	return math.Sqrt(-2*math.Log(1-unit(r))) * math.Cos(2*math.Pi*unit(r))
}
