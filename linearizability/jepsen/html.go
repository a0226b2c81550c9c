package jepsen

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strconv"
	"time"
)

//go:embed html.tmpl
var htmlTemplate string

// page is the one page that a person reads first: did it pass, if not why, what ran, what was skipped.
func (r *Report) page() ([]byte, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"number": thousands, "rate": func(v float64) string { return thousands(int(v + 0.5)) },
		"seconds": func(v float64) string { return fmt.Sprintf("%.1f s", v) },
		"length":  func(v float64) string { return time.Duration(v * float64(time.Second)).Round(time.Second).String() },
		"faults":  func(s StageReport) bool { return len(s.Rounds) > 0 },
		"date":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"stage":   r.stageName,
	}).Parse(htmlTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, r)
	return out.Bytes(), err
}

func (r *Report) stageName(i int) string {
	if i < 0 || i >= len(r.Stages) {
		return "the whole run"
	}
	return fmt.Sprintf("%d, %s", i, r.Stages[i].Name)
}

// thousands prints 1234567 as 1,234,567.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
