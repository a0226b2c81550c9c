package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
)

// ErrClosed answers every use of an engine that was closed, or that stopped after a fatal error.
var ErrClosed = errors.New("the store is closed")

// openError says what an operator can do about a store that does not open.
func openError(dir string, err error) error {
	if err != nil && strings.Contains(err.Error(), "unknown format major version") {
		return fmt.Errorf("the store was written by a newer version of cairn: start that one (%w)", err)
	}
	return wrap(dir, err)
}

// wrap marks damage as such, and says what an operator can do about a full disk. It costs nothing where nothing failed.
func wrap(where string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	}
	return translate(where, err)
}

func translate(where string, err error) error {
	var damage *base.Corruption
	switch {
	case errors.As(err, &damage):
		return err
	case pebble.IsCorruptionError(err):
		return &base.Corruption{Where: where, Cause: err}
	case vfs.IsNoSpaceError(err):
		return fmt.Errorf("the disk is full: make room and start the node again; what was acknowledged is kept (%w)", err)
	}
	return err
}

// listener hears of what goes wrong where no caller waits. Pebble would try a flush that failed again at once and for
// ever, for instance on a full disk: the store stops instead, and what met the error stays where it is. Damage that a
// read found is the reader's too, so it goes on to it.
func (p *Pebble) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: p.background,
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			p.fail(&base.Corruption{Where: info.Path, Cause: info.Details})
		},
	}
}

// background is told of what went wrong in Pebble's own work. A compaction that an ingestion has cancelled is made again: nothing is
// wrong with the disk.
func (p *Pebble) background(err error) {
	if !errors.Is(err, pebble.ErrCancelledCompaction) {
		p.stop(fmt.Errorf("background work of the store: %w", err))
	}
}

// fail ends the engine and tells the node.
func (p *Pebble) fail(err error) {
	p.cfg.Logger.Error("the store stops", "error", err)
	p.life.fail(wrap("store", err))
}

// stop is fail for those who cannot go on: it does not return.
func (p *Pebble) stop(err error) {
	p.fail(err)
	select {}
}

// pebbleLogger gives Pebble's words to the node's log. Pebble's Fatalf must not return.
type pebbleLogger struct{ p *Pebble }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.p.cfg.Logger.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.p.cfg.Logger.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := &fatalError{said: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.p.stop(err)
}

// fatalError is what Pebble said, and the error, if any, that it said it of: its formats do not wrap.
type fatalError struct {
	said  string
	cause error
}

func (e *fatalError) Error() string { return e.said }
func (e *fatalError) Unwrap() error { return e.cause }
