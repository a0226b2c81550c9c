package jepsen

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/api/faultpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// diskNemeses make a node's disk unwell, through the call that a node started with --unsafe-testing answers. A process that
// stops because of it, as it must after an error, is started again by the heal.
func diskNemeses() []Nemesis {
	row := func(name, about string, choose victims, d *faultpb.Disk) Nemesis {
		return Nemesis{Name: name, Class: "F09", About: about, Begin: unwell(choose, func(*base.Rand) (*faultpb.SetFaultsRequest, string) {
			return &faultpb.SetFaultsRequest{Disk: d}, fmt.Sprint(d)
		})}
	}
	return []Nemesis{
		row("disk-stall", "a node's syncs do not end", one, &faultpb.Disk{StallSyncs: true}),
		row("disk-stall-leader", "the syncs of the leader of the clients' range do not end", leader, &faultpb.Disk{StallSyncs: true}),
		row("disk-slow", "each write and sync of a node takes 30 ms more", one, &faultpb.Disk{SlowMicros: 30_000}),
		row("disk-slow-all", "each write and sync of every node takes 5 ms more", everybody, &faultpb.Disk{SlowMicros: 5_000}),
		row("disk-error-sync", "the syncs of the leader fail: it must stop", leader, &faultpb.Disk{FailSyncs: true}),
		row("disk-error-write", "a node's writes fail: it must stop", leader, &faultpb.Disk{FailWrites: true}),
		row("disk-full", "a node's writes find no space: it must stop", one, &faultpb.Disk{Full: true}),
	}
}

// clockNemeses move a node's clock, the same way.
func clockNemeses() []Nemesis {
	row := func(name, about string, choose victims, draw func(r *base.Rand) *faultpb.Clock) Nemesis {
		return Nemesis{Name: name, Class: "F08", About: about, Begin: unwell(choose, func(r *base.Rand) (*faultpb.SetFaultsRequest, string) {
			c := draw(r)
			return &faultpb.SetFaultsRequest{Clock: c}, fmt.Sprint(c)
		})}
	}
	step := func(least, most time.Duration) func(r *base.Rand) *faultpb.Clock {
		return func(r *base.Rand) *faultpb.Clock {
			d := int64(least) + r.Int63n(int64(most-least))
			if r.Int63n(2) == 0 {
				d = -d
			}
			return &faultpb.Clock{StepNanos: d}
		}
	}
	drift := func(r *base.Rand) *faultpb.Clock { return &faultpb.Clock{DriftMillionths: r.Int63n(100_000) - 50_000} }
	return []Nemesis{
		row("clock-step", "a node's wall clock jumps by 10 ms to 3 s", one, step(10*time.Millisecond, 3*time.Second)),
		row("clock-step-leader", "the wall clock of the leader's node jumps by 10 ms to 3 s", leader, step(10*time.Millisecond, 3*time.Second)),
		row("clock-step-far", "a node's wall clock jumps by up to ten minutes", one, step(time.Minute, 10*time.Minute)),
		row("clock-drift", "every clock runs up to 5 % fast or slow, as far as leases allow", everybody, drift),
		row("clock-freeze", "a node's wall clock stands still", leader, func(*base.Rand) *faultpb.Clock { return &faultpb.Clock{Frozen: true} }),
	}
}

// unwell makes a nemesis of a request to some nodes. The heal clears it, and starts what has stopped.
func unwell(choose victims, draw func(*base.Rand) (*faultpb.SetFaultsRequest, string)) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		chosen, err := choose(ctx, c, r)
		if err != nil {
			return "", nil, err
		}
		req, what := draw(r)
		heal := func(ctx context.Context) (err error) {
			for _, i := range chosen {
				if e := c.SetFaults(ctx, i, &faultpb.SetFaultsRequest{}); e != nil {
					// It stopped, as it should, or does not answer: a process begins anew with a disk that is well.
					err = errors.Join(err, c.Kill(i), c.Restart(ctx, i))
				}
			}
			return err
		}
		for _, i := range chosen {
			err = errors.Join(err, c.SetFaults(ctx, i, req))
		}
		return c.names(chosen) + ": " + what, heal, err
	}
}

// SetFaults replaces what is wrong with a node's disk and clock.
func (c *Cluster) SetFaults(ctx context.Context, i int, req *faultpb.SetFaultsRequest) error {
	d := req.GetDisk()
	c.Nodes[i].excuse(d.GetFailReads() || d.GetFailWrites() || d.GetFailSyncs() || d.GetFull())
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	conn, err := join.Dial(c.Nodes[i].ClientAddr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = faultpb.NewFaultsClient(conn).SetFaults(ctx, req)
	return err
}
