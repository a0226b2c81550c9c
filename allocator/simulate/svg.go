package simulate

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

//go:embed svg.tmpl
var svgTemplate string

// The picture's measures, in the units of its viewBox.
const (
	svgWidth  = 1200.0
	svgLeft   = 84.0
	svgRight  = 1180.0
	svgPanel  = 92.0 // height of one panel
	svgGap    = 24.0 // above it, for its name
	svgEvents = 13.0 // height of one line of an event's text
	svgRows   = 60   // of the heat map at most: of more nodes each row is several
	svgCells  = 240  // across
)

// picture has everything placed; the template only prints it.
type picture struct {
	Title                   string
	Width, Height           float64
	Left, Wide              float64
	Scale, Beside           float64 // where labels end: left of the plots, and at their right edge
	EventsTop, EventsBottom float64
	TickBottom, TickText    float64
	Panels                  []svgPanelOf
	HeatName                string
	HeatLabel               float64
	RowTall, RowFont        float64
	Rows                    []svgRow
	Cells                   []svgCell
	Events                  []svgEvent
	Ticks                   []svgTick
}

type svgPanelOf struct {
	Name, Most, Last  string
	Top, Tall, Bottom float64
	Label, ScaleTop   float64
	Band              string
	Lines, Areas      []svgShape
}

type svgShape struct{ Name, Points, Colour string }

type svgRow struct {
	Text         float64
	Label, Title string
}

type svgCell struct {
	X, Y, Width float64
	Colour      string
}

type svgEvent struct {
	X, TextX, TextY float64
	Label           string
}

type svgTick struct {
	X     float64
	Label string
}

// SVG draws the run: a panel for each of what is balanced, with the largest, the mean and the least of a node; what was moved; what
// was not as it should be; and a heat map of each node against the mean.
func (r *Result) SVG() ([]byte, error) {
	d := drawing{r: r, end: max(1, r.Seconds), y: 48}
	d.p = picture{Width: svgWidth, Left: svgLeft, Wide: svgRight - svgLeft, Scale: svgLeft - 6, Beside: svgRight,
		Title: fmt.Sprintf("%s: %s, %s, seed %d", r.Scenario, numbered(r.Nodes, "node"), numbered(r.Ranges, "range"), r.Seed)}
	d.events()
	d.spread("replicas", func(n *NodeSample) float64 { return float64(n.Count) }, func(v float64) string { return fmt.Sprintf("%.0f", v) })
	d.spread("bytes", func(n *NodeSample) float64 { return float64(n.Bytes) }, func(v float64) string { return Bytes(int64(v)) })
	d.spread("load of leaders, requests a second", func(n *NodeSample) float64 { return n.Load }, func(v float64) string { return fmt.Sprintf("%.0f", v) })
	d.areas("moves: under way, and done so far by the scale's top", []series{
		{"done so far", "#6a9a3b", scaled(r.Samples, func(s *Sample) float64 { return float64(s.Moves) })},
		{"under way", "#b4690e", scaled(r.Samples, func(s *Sample) float64 { return float64(s.UnderWay) })},
	}, fmt.Sprintf("%s at once at most, %d done", numbered(mostUnderWay(r.Samples), "move"), r.Total.Moves))
	wrong := 1
	for _, s := range r.Samples {
		wrong = max(wrong, s.Under, s.Violations, s.Unavailable)
	}
	of := func(f func(s *Sample) int) func(i int) float64 {
		return func(i int) float64 { return float64(f(&r.Samples[i])) / float64(wrong) }
	}
	d.areas("ranges with too few live replicas, that break a constraint, without a quorum", []series{
		{"too few live replicas", "#d08a2c", of(func(s *Sample) int { return s.Under })},
		{"break a constraint", "#7b4fa3", of(func(s *Sample) int { return s.Violations })},
		{"without a quorum", "#b3261e", of(func(s *Sample) int { return s.Unavailable })},
	}, fmt.Sprintf("worst %d, %d, %d", r.Worst.Under, r.Worst.Violations, r.Worst.Unavailable))
	d.heat()
	d.ticks()
	t, err := template.New("simulation").Parse(svgTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, &d.p)
	return out.Bytes(), err
}

type drawing struct {
	r   *Result
	p   picture
	end float64
	y   float64 // the next free place
}

type series struct {
	name, colour string
	at           func(i int) float64 // from 0 to 1
}

func scaled(samples []Sample, f func(*Sample) float64) func(int) float64 {
	most := 1.0
	for i := range samples {
		most = max(most, f(&samples[i]))
	}
	return func(i int) float64 { return f(&samples[i]) / most }
}

func mostUnderWay(samples []Sample) (n int) {
	for _, s := range samples {
		n = max(n, s.UnderWay)
	}
	return n
}

func (d *drawing) x(at float64) float64 {
	return round1(svgLeft + (svgRight-svgLeft)*min(1, max(0, at/d.end)))
}

// events get a line of text each, so that two at one time can be read.
func (d *drawing) events() {
	for _, e := range d.r.Events[1:] {
		x := d.x(e.Seconds)
		d.p.Events = append(d.p.Events, svgEvent{X: x, TextX: min(x+3, svgRight-200), TextY: d.y + svgEvents - 3,
			Label: seconds(e.Seconds) + " " + e.Event})
		d.y += svgEvents
	}
	d.p.EventsTop = 48
}

func (d *drawing) panel(name, most, last string) *svgPanelOf {
	top := d.y + svgGap
	d.p.Panels = append(d.p.Panels, svgPanelOf{Name: name, Most: most, Last: last, Top: top, Tall: svgPanel, Bottom: top + svgPanel,
		Label: top - 5, ScaleTop: top + 9})
	d.y = top + svgPanel
	return &d.p.Panels[len(d.p.Panels)-1]
}

// spread draws the largest, mean and least node of one dimension.
func (d *drawing) spread(name string, of func(*NodeSample) float64, text func(float64) string) {
	samples := d.r.Samples
	largest, mean, least := make([]float64, len(samples)), make([]float64, len(samples)), make([]float64, len(samples))
	top := 0.0
	for i, s := range samples {
		sum, weights := 0.0, 0.0
		least[i] = math.Inf(1)
		for j := range s.PerNode {
			n := &s.PerNode[j]
			if !n.Counts {
				continue
			}
			w := d.r.Weights[j]
			sum, weights = sum+of(n), weights+w
			largest[i], least[i] = max(largest[i], of(n)/w), min(least[i], of(n)/w)
		}
		if weights > 0 {
			mean[i] = sum / weights
		} else {
			least[i] = 0
		}
		top = max(top, largest[i])
	}
	top = max(top, 1e-9)
	last := ""
	if n := len(samples) - 1; n >= 0 && mean[n] > 0 {
		last = fmt.Sprintf("in the end %s, %s, %s: largest over mean %.3f", text(largest[n]), text(mean[n]), text(least[n]), largest[n]/mean[n])
	}
	p := d.panel(name, text(top), last)
	line := func(v []float64) string { return d.points(p, func(i int) float64 { return v[i] / top }) }
	p.Band = line(largest) + " " + d.backwards(p, func(i int) float64 { return least[i] / top })
	p.Lines = []svgShape{{"largest", line(largest), "#b3261e"}, {"least", line(least), "#14518c"}, {"mean", line(mean), "#222"}}
}

func (d *drawing) areas(name string, of []series, last string) {
	p := d.panel(name, "", last)
	for _, s := range of {
		first, end := d.x(0), d.x(d.end)
		points := fmt.Sprintf("%g,%g %s %g,%g", first, p.Bottom, d.points(p, s.at), end, p.Bottom)
		p.Areas = append(p.Areas, svgShape{s.name, points, s.colour})
	}
}

// points are those of a line of values from 0 to 1.
func (d *drawing) points(p *svgPanelOf, at func(i int) float64) string {
	var out []string
	for i := range d.r.Samples {
		out = append(out, d.point(p, i, at(i)))
	}
	return strings.Join(out, " ")
}

func (d *drawing) backwards(p *svgPanelOf, at func(i int) float64) string {
	var out []string
	for i := len(d.r.Samples) - 1; i >= 0; i-- {
		out = append(out, d.point(p, i, at(i)))
	}
	return strings.Join(out, " ")
}

func (d *drawing) point(p *svgPanelOf, i int, share float64) string {
	return fmt.Sprintf("%g,%g", d.x(d.r.Samples[i].Seconds), round1(p.Bottom-share*(p.Tall-4)))
}

// heat draws each node's replicas against the mean: blue has less, red has more, grey is dead or on its way out.
func (d *drawing) heat() {
	samples, nodes := d.r.Samples, len(d.r.Names)
	if len(samples) == 0 || nodes == 0 {
		return
	}
	each := (nodes + svgRows - 1) / svgRows
	rows := (nodes + each - 1) / each
	d.p.HeatName = "replicas of each node against the mean: blue less, white the mean, red more than it; grey: dead, or leaving"
	d.p.HeatLabel = d.y + svgGap - 5
	d.p.RowTall = min(14, max(5, round1(420/float64(rows))))
	d.p.RowFont = min(10, d.p.RowTall)
	top := d.y + svgGap
	every := (len(samples) + svgCells - 1) / svgCells
	for row := range rows {
		y := round1(top + float64(row)*d.p.RowTall)
		label, _, _ := strings.Cut(d.r.Names[row*each], " ")
		d.p.Rows = append(d.p.Rows, svgRow{Text: y + d.p.RowTall - 1, Label: label, Title: d.r.Names[row*each]})
		for i := 0; i < len(samples); i += every {
			until := d.end
			if i+every < len(samples) {
				until = samples[i+every].Seconds
			}
			colour, there := d.colour(&samples[i], row*each, min(nodes, (row+1)*each))
			x, n := d.x(samples[i].Seconds), len(d.p.Cells)-1
			switch {
			case !there:
			case n >= 0 && d.p.Cells[n].Y == y && d.p.Cells[n].Colour == colour: // it goes on
				d.p.Cells[n].Width = round1(d.x(until) - d.p.Cells[n].X)
			default:
				d.p.Cells = append(d.p.Cells, svgCell{X: x, Y: y, Width: max(0.5, round1(d.x(until)-x)), Colour: colour})
			}
		}
	}
	d.y = round1(top + float64(rows)*d.p.RowTall)
}

func (d *drawing) colour(s *Sample, from, to int) (colour string, there bool) {
	sum, weights, own, ownWeights := 0.0, 0.0, 0.0, 0.0
	for i := range s.PerNode {
		n := &s.PerNode[i]
		if i >= from && i < to {
			there = true
		}
		if !n.Counts {
			continue
		}
		sum, weights = sum+float64(n.Count), weights+d.r.Weights[i]
		if i >= from && i < to {
			own, ownWeights = own+float64(n.Count), ownWeights+d.r.Weights[i]
		}
	}
	if ownWeights == 0 || sum == 0 {
		return "#bdbdbd", there
	}
	off := own/ownWeights/(sum/weights) - 1 // -1: nothing
	shade := func(strength float64, r, g, b float64) string {
		strength = min(1, strength)
		mix := func(c float64) int { return int(255 + (c-255)*strength) }
		return fmt.Sprintf("#%02x%02x%02x", mix(r), mix(g), mix(b))
	}
	if off < 0 {
		return shade(-off, 20, 81, 140), there
	}
	return shade(2*off, 179, 38, 30), there
}

func (d *drawing) ticks() {
	d.p.EventsBottom = d.y
	d.p.TickBottom, d.p.TickText, d.p.Height = d.y+5, d.y+18, d.y+28
	step := d.tickStep()
	for at := time.Duration(0); at.Seconds() <= d.end; at += step {
		d.p.Ticks = append(d.p.Ticks, svgTick{d.x(at.Seconds()), seconds(at.Seconds())})
	}
}

// tickStep gives at most a dozen ticks.
func (d *drawing) tickStep() time.Duration {
	for _, step := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour} {
		if d.end/step.Seconds() <= 12 {
			return step
		}
	}
	return time.Duration(math.Ceil(d.end/12/86400)) * 24 * time.Hour
}

func round1(v float64) float64 { return math.Round(v*10) / 10 }
