package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/statemachine"
)

// counter is the state machine of every group: it counts what is applied and keeps nothing else, so that the loop is
// measured and not the state machine.
type counter struct{ applied uint64 }

func newCounter(uint64, uint64) statemachine.IStateMachine { return new(counter) }

// Update implements statemachine.IStateMachine: the result is the entry's length.
func (c *counter) Update(e statemachine.Entry) (statemachine.Result, error) {
	c.applied++
	return statemachine.Result{Value: uint64(len(e.Cmd))}, nil
}

// Lookup implements statemachine.IStateMachine.
func (c *counter) Lookup(any) (any, error) { return c.applied, nil }

// SaveSnapshot implements statemachine.IStateMachine.
func (c *counter) SaveSnapshot(w io.Writer, _ statemachine.ISnapshotFileCollection, _ <-chan struct{}) error {
	return binary.Write(w, binary.LittleEndian, c.applied)
}

// RecoverFromSnapshot implements statemachine.IStateMachine.
func (c *counter) RecoverFromSnapshot(r io.Reader, _ []statemachine.SnapshotFile, _ <-chan struct{}) error {
	return binary.Read(r, binary.LittleEndian, &c.applied)
}

// Close implements statemachine.IStateMachine.
func (c *counter) Close() error { return nil }

// errorLog prints dragonboat's errors to standard error and drops the rest: standard output is the driver's.
type errorLog struct{ about string }

func newLogger(about string) logger.ILogger { return errorLog{about} }

func (l errorLog) SetLevel(logger.LogLevel)  {}
func (l errorLog) Debugf(string, ...any)     {}
func (l errorLog) Infof(string, ...any)      {}
func (l errorLog) Warningf(string, ...any)   {}
func (l errorLog) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, l.about+": "+f+"\n", a...) }
func (l errorLog) Panicf(f string, a ...any) { panic(fmt.Sprintf(l.about+": "+f, a...)) }
