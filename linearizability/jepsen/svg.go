package jepsen

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"
)

//go:embed svg.tmpl
var svgTemplate string

// The timeline's measures, in the units of its viewBox.
const (
	svgWidth  = 1200.0
	svgLeft   = 62.0 // of the plot: the scale of the rate is left of it
	svgRight  = 1140.0
	svgTop    = 40.0
	svgBottom = 300.0
	svgLane   = 14.0 // of one node
	svgTicks  = 10   // on the time axis, at most
)

// picture is the timeline with everything placed. The template only prints it.
type picture struct {
	Width, Height       float64
	Left, Right         float64
	Top, Bottom, Middle float64
	Bands               []svgBand
	Stages              []svgLine
	Rate, P99           string // points of polylines
	RateTop, P99Top     string // labels of the scales
	Ticks               []svgLine
	Lanes               []svgLane1
	Marks               []svgMark
}

type svgBand struct {
	X, Width float64
	Title    string
}

type svgLine struct {
	X     float64
	Label string
}

type svgLane1 struct {
	Y, Text float64
	Label   string
}

type svgMark struct{ X, Y, Width, Height float64 }

// timeline draws faults as bands, operations a second and the 99th percentile of their latency as lines, and below them a
// lane for each node that is filled while it led the clients' range.
func (r *Report) timeline() ([]byte, error) {
	end := max(r.Seconds, 1)
	x := func(at float64) float64 {
		return round1(svgLeft + (svgRight-svgLeft)*min(1, max(0, at/end)))
	}
	p := picture{
		Width: svgWidth, Height: svgBottom + 40 + svgLane*float64(r.Nodes) + 10, Left: svgLeft, Right: svgRight,
		Top: svgTop, Bottom: svgBottom, Middle: (svgTop + svgBottom) / 2,
	}
	for _, b := range r.Bands {
		title := fmt.Sprintf("%s, %.1f s to %.1f s: %s", b.Name, b.From, b.To, b.What)
		p.Bands = append(p.Bands, svgBand{x(b.From), max(1, round1(x(b.To)-x(b.From))), title})
	}
	for _, s := range r.Stages {
		p.Stages = append(p.Stages, svgLine{x(s.From), s.Name})
	}
	topRate, topP99 := 1.0, 1.0
	for _, point := range r.Points {
		topRate, topP99 = max(topRate, point.Rate), max(topP99, point.P99)
	}
	topRate, topP99 = roundUp(topRate), roundUp(topP99)
	p.RateTop, p.P99Top = fmt.Sprintf("%g/s", topRate), fmt.Sprintf("%g ms", topP99)
	y := func(share float64) float64 { return round1(svgBottom - (svgBottom-svgTop)*share) }
	var rate, p99 strings.Builder
	for _, point := range r.Points {
		fmt.Fprintf(&rate, "%g,%g ", x(point.At), y(point.Rate/topRate))
		// Logarithmic: a stall of seconds must not flatten the milliseconds.
		fmt.Fprintf(&p99, "%g,%g ", x(point.At), y(math.Log1p(point.P99)/math.Log1p(topP99)))
	}
	p.Rate, p.P99 = strings.TrimSpace(rate.String()), strings.TrimSpace(p99.String())
	for step, at := tickStep(end), 0.0; at <= end; at += step {
		p.Ticks = append(p.Ticks, svgLine{x(at), fmt.Sprintf("%g s", at)})
	}
	p.lanes(r, x, end)
	t, err := template.New("timeline").Parse(svgTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, &p)
	return out.Bytes(), err
}

func (p *picture) lanes(r *Report, x func(float64) float64, end float64) {
	top := svgBottom + 34
	for i := range r.Nodes {
		y := top + svgLane*float64(i)
		p.Lanes = append(p.Lanes, svgLane1{y, y + svgLane - 4, fmt.Sprintf("node %d", i+1)})
	}
	for i, m := range r.Leaders {
		if m.Node < 0 || m.Node >= r.Nodes {
			continue
		}
		until := end
		if i+1 < len(r.Leaders) {
			until = r.Leaders[i+1].At
		}
		y := top + svgLane*float64(m.Node)
		p.Marks = append(p.Marks, svgMark{x(m.At), y + 2, max(1, round1(x(until)-x(m.At))), svgLane - 4})
	}
}

// roundUp gives the next of 1, 2, 5, 10, 20 ….
func roundUp(v float64) float64 {
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5, 10} {
		if v <= f*base {
			return f * base
		}
	}
	return 10 * base
}

func tickStep(end float64) float64 { return roundUp(end / svgTicks) }

func round1(v float64) float64 { return math.Round(v*10) / 10 }
