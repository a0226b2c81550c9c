package jepsen

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// recorder is one stage's history, in memory for its checkers and in a file for whoever looks at it later; a harness that
// dies leaves the file cut short, and what stands in it can be checked all the same. It is safe for concurrent use: the
// order of events is the order in which they got the lock, a client notes an invocation before it sends and a return
// after it was answered.
type recorder struct {
	clock func() time.Duration // since the run's start

	mu      sync.Mutex
	history linearizability.History
	file    *os.File
	buffer  *bufio.Writer
	writer  *linearizability.Writer
	err     error // the first one of writing; the run goes on, and its stage fails
}

// newRecorder begins a stage's history with the writes of earlier stages whose outcome was never known: they may still
// take effect. They stand at its beginning as invoked and never answered, which is true of them.
func newRecorder(path string, clock func() time.Duration, earlier []*linearizability.Op) (*recorder, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	r := &recorder{file: file, buffer: bufio.NewWriterSize(file, 1<<20)}
	if r.writer, err = linearizability.NewWriter(r.buffer); err != nil {
		_ = file.Close() // what went wrong is told by err
		return nil, fmt.Errorf("history %s: %w", filepath.Base(path), err)
	}
	for _, op := range earlier {
		r.invoke(op.Client, base.KeyspaceID(op.Keyspace), op.Request, false)
	}
	r.clock, r.history.Clock = clock, clock // when those were invoked is not known any more
	return r, nil
}

// invoke notes that a client is about to send a request.
func (r *recorder) invoke(client int, ks base.KeyspaceID, req proto.Message, final bool) *linearizability.Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	op := r.history.Invoke(client, uint64(ks), req)
	op.Final = final
	r.note(r.writer.Invoke(op))
	return op
}

// ended notes what became of it.
func (r *recorder) ended(op *linearizability.Op, o linearizability.Outcome, resp proto.Message, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Return(op, o, resp, text)
	r.note(r.writer.Return(op))
}

func (r *recorder) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// recent is how far back requests count as made lately.
const recent = 500

// used draws a request that was made lately in a keyspace; nil if there is none.
func (r *recorder) used(ks base.KeyspaceID, rand *base.Rand) proto.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := r.history.Ops
	ops = ops[max(0, len(ops)-recent):]
	for from := len(ops); from > 0; {
		from = int(rand.Int63n(int64(from)))
		if base.KeyspaceID(ops[from].Keyspace) == ks {
			return ops[from].Request
		}
	}
	return nil
}

// close ends the file. No more is recorded.
func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(r.writer.End())
	r.note(r.buffer.Flush())
	r.note(r.file.Close())
	if r.err != nil {
		return fmt.Errorf("history %s: %w", filepath.Base(r.file.Name()), r.err)
	}
	return nil
}

// open returns the writes whose outcome nobody knows, and of the compactions the highest of each keyspace: what is gone by it is gone
// for those who come later too.
func (r *recorder) open() []*linearizability.Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*linearizability.Op
	compacted := make(map[uint64]*linearizability.Op)
	for _, op := range r.history.Ops {
		if c, ok := op.Request.(*pb.CompactionRequest); ok {
			if last := compacted[op.Keyspace]; op.Outcome != linearizability.Failed && (last == nil || last.Request.(*pb.CompactionRequest).Revision < c.Revision) {
				compacted[op.Keyspace] = op
			}
			continue
		}
		if op.Outcome == linearizability.Unknown {
			out = append(out, op)
		}
	}
	for _, ks := range slices.Sorted(maps.Keys(compacted)) {
		out = append(out, compacted[ks])
	}
	return out
}
