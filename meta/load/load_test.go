package load_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/load"
)

// TestStories runs the dialogues in testdata/stories. Verbs: meter (seed=, threshold=) begins one; serve (seconds=, rate=) serves
// the patterns of its input, each a weight and one of: key K; keys P N (P000 to PN, evenly); append P (ever higher keys);
// round P N (P000, P001, … again and again); scan P N W (W keys from any of N on); scanall K; txn K L. It prints what changes,
// second by second.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		w := &world{}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			switch c.Cmd {
			case "meter":
				var seed, threshold int
				c.ScanArgs(t, "seed", &seed)
				c.ScanArgs(t, "threshold", &threshold)
				*w = *newWorld(uint64(seed), float64(threshold))
				return ""
			case "serve":
				var seconds, rate int
				c.ScanArgs(t, "seconds", &seconds)
				c.ScanArgs(t, "rate", &rate)
				patterns, err := parsePatterns(c.Input)
				if err != nil {
					c.Fatalf(t, "%v", err)
				}
				return w.serve(seconds, rate, patterns)
			}
			c.Fatalf(t, "no such verb")
			return ""
		})
	})
}

// world drives a meter as node/store does: requests are counted, some are touched, and once a second it is looked at.
type world struct {
	m         *load.Meter
	clients   *base.Rand
	threshold float64
	now       base.Instant
	hot       bool
	last      load.Verdict
	appended  int
	round     int
}

func newWorld(seed uint64, threshold float64) *world {
	return &world{m: load.NewMeter(0, base.NewRand(seed)), clients: base.NewRand(^seed), threshold: threshold}
}

type pattern struct {
	weight int
	verb   string
	key    string
	n, m   int
	other  string
}

func parsePatterns(text string) (ps []pattern, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		p := pattern{verb: f[1], key: f[2]}
		if p.weight, err = strconv.Atoi(f[0]); err != nil {
			return nil, err
		}
		if len(f) > 3 {
			p.other = f[3]
			p.n, _ = strconv.Atoi(f[3]) // a key where the verb takes one
		}
		if len(f) > 4 {
			if p.m, err = strconv.Atoi(f[4]); err != nil {
				return nil, err
			}
		}
		ps = append(ps, p)
	}
	return ps, nil
}

func numbered(prefix string, i int) []byte { return fmt.Appendf(nil, "%s%06d", prefix, i) }

func (w *world) span(ps []pattern) load.Span {
	total := 0
	for _, p := range ps {
		total += p.weight
	}
	at := int(w.clients.Int63n(int64(total)))
	i := 0
	for at >= ps[i].weight {
		at -= ps[i].weight
		i++
	}
	switch p := ps[i]; p.verb {
	case "key":
		return load.Span{Start: []byte(p.key)}
	case "keys":
		return load.Span{Start: numbered(p.key, int(w.clients.Int63n(int64(p.n))))}
	case "append":
		w.appended++
		return load.Span{Start: numbered(p.key, w.appended)}
	case "round":
		w.round++
		return load.Span{Start: numbered(p.key, w.round%p.n)}
	case "scan":
		from := int(w.clients.Int63n(int64(p.n)))
		return load.Span{Start: numbered(p.key, from), End: numbered(p.key, from+p.m)}
	case "scanall":
		return load.Span{Start: []byte(p.key), End: []byte{0}}
	case "txn":
		return load.Span{Start: []byte(p.key), End: []byte(p.other + "\x00"), Whole: true}
	default:
		panic("no such pattern: " + p.verb)
	}
}

func (w *world) serve(seconds, rate int, ps []pattern) string {
	var out strings.Builder
	next := uint64(1)
	for range seconds {
		for n := range uint64(rate) {
			s := w.span(ps)
			if w.m.Hot() && n+1 >= next {
				w.m.Touch(s)
				next = n + 1 + w.m.Gap()
			}
		}
		next -= min(next, uint64(rate))
		w.now = w.now.Add(time.Second)
		v := w.m.Look(w.now, uint64(rate), w.threshold)
		if w.m.Hot() != w.hot {
			w.hot = w.m.Hot()
			fmt.Fprintf(&out, "%s: %.0f/s, hot: %t\n", w.at(), v.Rate, w.hot)
		}
		if v.Windows > 0 {
			fmt.Fprintf(&out, "%s: %.0f/s, window %d: %s\n", w.at(), v.Rate, v.Windows, verdict(v))
		}
		w.last = v
	}
	fmt.Fprintf(&out, "%s: %.0f/s\n", w.at(), w.last.Rate)
	return out.String()
}

func (w *world) at() string { return fmt.Sprintf("%2.0fs", w.now.Sub(0).Seconds()) }

func verdict(v load.Verdict) string {
	what := "stay whole; the best cut is"
	if v.Helps {
		what = "cut"
	}
	return fmt.Sprintf("%s at %q (left %.2f, right %.2f, across %.2f)", what, v.Best.Key, v.Best.Left, v.Best.Right, v.Best.Across)
}
