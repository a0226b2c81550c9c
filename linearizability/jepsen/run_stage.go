package jepsen

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// phases are the stretches of a stage, as times after the run's start, whose rates are asked for.
type phases struct{ quiet, fault []stretch }

type stretch struct{ from, to time.Duration }

// stage runs one stage and holds its history against the checkers. It returns false if the cluster is not well enough,
// or ctx not long enough, for another one.
func (r *run) stage(ctx context.Context, s stage) bool {
	rep := StageReport{Number: s.Number, Name: s.Name, Class: s.Class, From: r.now(), History: fmt.Sprintf("history-%03d", s.Number)}
	r.Logger.Info("stage", "number", s.Number, "name", s.Name, "rounds", len(s.Rounds))
	record, err := newRecorder(filepath.Join(r.Dir, rep.History), func() time.Duration { return time.Since(r.start) }, r.unknown)
	if err != nil {
		r.report.fail(s.Number, "harness", "%v", err)
		return false
	}
	l := &load{endpoints: r.endpoints, record: record, meter: r.meter, ids: &r.ids, works: r.works(s.Number)}
	if r.cluster != nil {
		r.cluster.shard.at(func(rand *base.Rand) []byte { return l.cut(r.spread.id, rand) })
	}
	err = r.drive(ctx, s, l, &rep)
	if r.cluster != nil {
		rep.Changes = r.cluster.shard.at(nil)
		for _, f := range r.cluster.takeBroken() {
			r.report.fail(s.Number, f.Checker, "%s", f.What)
		}
	}
	if err != nil {
		r.report.fail(s.Number, "stage", "%v", err)
		r.unwell(ctx, s.Number)
	}
	if e := record.close(); e != nil {
		r.report.fail(s.Number, "harness", "%v", e)
	}
	rep.To = r.now()
	carried := len(r.unknown)
	r.unknown = record.open()
	r.check(s.Number, l.works, &record.history, carried, &rep)
	r.report.Stages = append(r.report.Stages, rep)
	r.Logger.Info("stage ended", "number", s.Number, "name", s.Name, "ok", rep.Operations.OK, "failed", rep.Operations.Failed,
		"unknown", rep.Operations.Unknown, "quiet", int(rep.QuietRate), "fault", int(rep.FaultRate),
		"recovery", fmt.Sprintf("%.1fs", rep.Recovery), "checked", rep.Checked, "in", fmt.Sprintf("%.1fs", rep.Check),
		"failures", len(r.report.Failures))
	return err == nil && ctx.Err() == nil
}

// works are a stage's workloads, on keys that no other stage has. The prefix says which they are: a history that is read
// from its file is checked by what its keys are named.
func (r *run) works(number int) []*work {
	var out []*work
	for _, k := range r.Workloads {
		prefix := stagePrefix(number) + k.Name + "/"
		out = append(out, newWork(k, prefix, r.spread))
	}
	return out
}

// newWork makes a workload, in the keyspace of many ranges if it says where that may be cut.
func newWork(k linearizability.Kind, prefix string, spread keyspace) *work {
	w := &work{name: k.Name, prefix: prefix, keyspace: defaultKeyspace(), cut: k.Cut, w: k.New(prefix, 0), watches: k.Watches, leases: k.Leases}
	switch {
	case k.Watches: // what it asks about is Cairn's own
		w.keyspace = keyspace{id: base.KeyspaceSys}
	case k.Cut != nil:
		w.keyspace = spread
	}
	return w
}

// keyspaces are those that some workloads write to.
func keyspaces(works []*work) (out []keyspace) {
	for _, w := range works {
		if !w.watches && !slices.Contains(out, w.keyspace) {
			out = append(out, w.keyspace)
		}
	}
	return out
}

// cut draws a key at which the keyspace of many ranges may be cut: beside one that a client used lately.
func (l *load) cut(spread base.KeyspaceID, rand *base.Rand) []byte {
	key := firstKey(l.record.used(spread, rand))
	for _, w := range l.works {
		if w.cut != nil && len(key) > len(w.prefix) && strings.HasPrefix(key, w.prefix) {
			return w.cut([]byte(key))
		}
	}
	return nil
}

func stagePrefix(number int) string { return fmt.Sprintf("s%03d/", number) }

// drive runs a stage's clients and faults and its closing reads. An error means that the cluster did not get well.
func (r *run) drive(ctx context.Context, s stage, l *load, rep *StageReport) error {
	defer l.streams.close()
	if err := r.within(ctx, l.setup); err != nil {
		return err
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	rand := base.NewRand(r.Seed ^ uint64(s.Number+1)<<32)
	clients := base.NewRand(rand.Uint64())
	go func() {
		l.run(ctx, stop, r.Clients, clients)
		close(ended)
	}()
	var p phases
	err := r.rounds(ctx, s, l, rand, rep, &p)
	close(stop)
	<-ended
	r.rates(s, rep, p)
	if err != nil {
		return err
	}
	if err := r.within(ctx, l.final); err != nil {
		return err
	}
	for _, ks := range keyspaces(l.works) {
		k, err := r.keep(ctx, s.Number, l, ks)
		if err != nil {
			return err
		}
		r.kept = append(r.kept, k)
	}
	return nil
}

// within gives a phase in which nothing is wrong as long as a recovery may take.
func (r *run) within(ctx context.Context, phase func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
	defer cancel()
	return phase(limit)
}

// rounds makes the cluster unwell and well again, as often as the stage says.
func (r *run) rounds(ctx context.Context, s stage, l *load, rand *base.Rand, rep *StageReport, p *phases) error {
	begun := time.Now()
	for _, rd := range s.Rounds {
		if err := r.quiet(ctx, rd.Quiet, p); err != nil {
			return err
		}
		if err := r.round(ctx, rd, l, rand, rep, p); err != nil {
			return err
		}
	}
	return r.quiet(ctx, max(s.Rest, s.Length-time.Since(begun)), p)
}

func (r *run) quiet(ctx context.Context, d time.Duration, p *phases) error {
	from := time.Since(r.start)
	if !pause(ctx, nil, d) {
		return errCutShort
	}
	p.quiet = append(p.quiet, stretch{from, time.Since(r.start)})
	return nil
}

// round is one bout: begin, hold, heal, recover.
func (r *run) round(ctx context.Context, rd round, l *load, rand *base.Rand, rep *StageReport, p *phases) error {
	out := RoundReport{Begin: r.now()}
	from := time.Since(r.start)
	var what []string
	var heals []func(context.Context) error
	var begun []Band
	var failed error
	if r.cluster != nil {
		r.cluster.several.Store(len(rd.Nemeses) > 1)
	}
	for _, n := range rd.Nemeses {
		at := r.now()
		did, heal, err := begin(ctx, n, r.cluster, rand)
		if heal != nil {
			heals = append(heals, heal)
			begun = append(begun, Band{From: at, Name: n.Name, What: did})
		}
		what = append(what, did)
		r.Logger.Info("fault", "nemesis", n.Name, "what", did)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s could not begin: %w", n.Name, err))
		}
	}
	out.What = strings.Join(what, "; and ")
	if failed == nil && !pause(ctx, nil, rd.Hold) {
		failed = errCutShort
	}
	out.Heal = r.now()
	for i, heal := range heals {
		if err := healed(ctx, heal); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s could not be healed: %w", begun[i].Name, err))
		}
		begun[i].To = r.now()
	}
	r.report.Bands = append(r.report.Bands, begun...)
	out.Healed = r.now()
	p.fault = append(p.fault, stretch{from, time.Since(r.start)})
	if failed == nil {
		failed = r.recover(ctx, l)
	}
	out.Recovered = r.now()
	out.Rate = r.meter.between(from, seconds(out.Healed))
	rep.Recovery = max(rep.Recovery, out.Recovery())
	rep.Rounds = append(rep.Rounds, out)
	return failed
}

// begin and healed give a nemesis its time. A heal is made also when the run was told to stop: what a nemesis did to this
// machine must not stay.
func begin(ctx context.Context, n Nemesis, c *Cluster, rand *base.Rand) (string, func(context.Context) error, error) {
	ctx, cancel := context.WithTimeout(ctx, nemesisTime)
	defer cancel()
	return n.Begin(ctx, c, rand)
}

func healed(ctx context.Context, heal func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), nemesisTime)
	defer cancel()
	return heal(ctx)
}

// recover waits until each client has succeeded in something that it began after the heal, each node serves, and every range
// has its replicas.
func (r *run) recover(ctx context.Context, l *load) error {
	limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
	defer cancel()
	select {
	case <-l.recovered(r.Clients):
	case <-limit.Done():
		if ctx.Err() != nil {
			return errCutShort
		}
		return fmt.Errorf("%s after the heal %d of %d clients had not succeeded in anything again", r.Limits.Recovery, l.left(), r.Clients)
	}
	for i := range l.endpoints() {
		if err := l.serves(limit, i, defaultKeyspace(), []byte(probeKey)); err != nil {
			return fmt.Errorf("within %s of the heal node %d did not serve a linearizable read: %w", r.Limits.Recovery, i+1, err)
		}
	}
	if err := r.rangesServe(limit, l); err != nil {
		return fmt.Errorf("within %s of the heal %w", r.Limits.Recovery, err)
	}
	if err := r.settled(limit); err != nil {
		return fmt.Errorf("within %s of the heal not every range had its replicas: %w", r.Limits.Recovery, err)
	}
	return nil
}

// rangesServe waits until ranges cover each keyspace once, and each of the keyspace of many answers a linearizable read.
func (r *run) rangesServe(limit context.Context, l *load) error {
	all, err := r.tiled(limit)
	if err != nil {
		return fmt.Errorf("the ranges were not whole: %w", err)
	}
	for i, rg := range all {
		d := rg.Descriptor_
		if rg.Keyspace != r.spread.name || r.spread.name == "" {
			continue
		}
		key := d.GetStart()
		if len(key) == 0 {
			key = []byte(probeKey)
		}
		if err := l.serves(limit, i, r.spread, key); err != nil {
			return fmt.Errorf("range %d did not serve a linearizable read of %q: %w", d.GetRangeId(), key, err)
		}
	}
	return nil
}

// rates works out what clients got in the phases of a stage, and holds it against the limits.
func (r *run) rates(s stage, rep *StageReport, p phases) {
	rep.QuietRate, rep.FaultRate = r.rate(p.quiet), r.rate(p.fault)
	least := r.Limits.QuietRate
	if len(s.Rounds) == 0 {
		least = r.Limits.Rate
	}
	if len(p.quiet) > 0 && rep.QuietRate < least {
		r.report.fail(s.Number, "throughput", "clients got %.0f operations a second where nothing was wrong, at least %.0f are asked for",
			rep.QuietRate, least)
	}
}

func (r *run) rate(of []stretch) float64 {
	var ok, length float64
	for _, s := range of {
		d := (s.to - s.from).Seconds()
		ok += r.meter.between(s.from, s.to) * d
		length += d
	}
	if length == 0 {
		return 0
	}
	return ok / length
}

func seconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }

// count is operations by outcome.
func count(ops []*linearizability.Op) (c Counts) {
	for _, op := range ops {
		c.count(op.Outcome)
	}
	return c
}
