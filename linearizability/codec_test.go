package linearizability

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/askpb"
)

// drawHistory writes a random history to a file and returns both.
func drawHistory(t *rapid.T) (*History, []byte) {
	var file bytes.Buffer
	w, err := NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	h := &History{}
	if rapid.Bool().Draw(t, "clock") {
		h.Clock = func() time.Duration { return time.Duration(rapid.Int64Range(1, 1<<50).Draw(t, "now")) }
	}
	var under []*Op
	for range rapid.IntRange(0, 40).Draw(t, "events") {
		if len(under) > 0 && rapid.Bool().Draw(t, "return") {
			i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
			op := under[i]
			under = append(under[:i], under[i+1:]...)
			drawReturn(t, h, op)
			if err := w.Return(op); err != nil {
				t.Fatal(err)
			}
			continue
		}
		req, _, err := ofKind(rapid.Uint64Range(1, kinds).Draw(t, "kind"))
		if err != nil {
			t.Fatal(err)
		}
		switch r := req.(type) {
		case *pb.PutRequest:
			r.Key, r.Value = drawBytes(t), drawBytes(t)
		case *pb.RangeRequest:
			r.Key, r.Serializable = drawBytes(t), rapid.Bool().Draw(t, "serializable")
		case *askpb.AskRequest:
			r.Key, r.Generation = drawBytes(t), rapid.Uint64().Draw(t, "generation")
		}
		op := h.Invoke(rapid.IntRange(0, 1<<40).Draw(t, "client"), rapid.Uint64().Draw(t, "keyspace"), req)
		op.Final = rapid.Bool().Draw(t, "final")
		if err := w.Invoke(op); err != nil {
			t.Fatal(err)
		}
		under = append(under, op)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	return h, file.Bytes()
}

func drawReturn(t *rapid.T, h *History, op *Op) {
	switch rapid.SampledFrom([]Outcome{OK, Failed, Unknown}).Draw(t, "outcome") {
	case OK:
		kind, _ := kindOf(op.Request)
		_, resp, _ := ofKind(kind)
		if r, ok := resp.(*pb.PutResponse); ok {
			r.Header = &pb.ResponseHeader{Revision: rapid.Int64().Draw(t, "revision")}
		}
		if r, ok := resp.(*askpb.AskResponse); ok {
			r.NodeId = rapid.Uint64().Draw(t, "node")
		}
		h.Return(op, OK, resp, "")
	case Failed:
		h.Return(op, Failed, nil, "no leader")
	default:
		h.Return(op, Unknown, nil, "timed out")
	}
}

func drawBytes(t *rapid.T) []byte { return rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes") }

func sameOps(a, b []*Op) bool {
	if len(a) != len(b) {
		return false
	}
	for i, x := range a {
		y := b[i]
		if x.Client != y.Client || x.Keyspace != y.Keyspace || x.Invoked != y.Invoked || x.Returned != y.Returned ||
			x.Outcome != y.Outcome || x.Err != y.Err || x.Final != y.Final || x.Began != y.Began || x.Ended != y.Ended || !proto.Equal(x.Request, y.Request) ||
			(x.Response == nil) != (y.Response == nil) || x.Response != nil && !proto.Equal(x.Response, y.Response) {
			return false
		}
	}
	return true
}

func TestHistoryFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, file := drawHistory(t)
		got, err := ReadHistory(bytes.NewReader(file))
		if err != nil || !sameOps(got.Ops, h.Ops) {
			t.Fatalf("%v; %d operations, want %d", err, len(got.Ops), len(h.Ops))
		}
	})
}

// Wherever a file is cut, it is said so, and what stands before the cut is there: a beginning of the history.
func TestHistoryCutShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, file := drawHistory(t)
		at := rapid.IntRange(len(fileMagic)+1, len(file)-1).Draw(t, "cut")
		got, err := ReadHistory(bytes.NewReader(file[:at]))
		var cut *CutShort
		if !errors.As(err, &cut) || got == nil || cut.Offset > int64(at) {
			t.Fatalf("cut at %d of %d: %v", at, len(file), err)
		}
		if len(got.Ops) > len(h.Ops) {
			t.Fatalf("%d operations of %d", len(got.Ops), len(h.Ops))
		}
		for i, op := range got.Ops {
			if op.Invoked != h.Ops[i].Invoked || op.Returned != 0 && op.Returned != h.Ops[i].Returned {
				t.Fatalf("operation %d: %+v, want %+v or unknown", i, op, h.Ops[i])
			}
		}
	})
}

// A byte that is changed is found, whatever it means.
func TestHistoryDamaged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, file := drawHistory(t)
		at := rapid.IntRange(0, len(file)-1).Draw(t, "at")
		file[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		got, err := ReadHistory(bytes.NewReader(file))
		if err == nil {
			t.Fatalf("byte %d of %d changed, and nobody saw: %d operations of %d", at, len(file), len(got.Ops), len(h.Ops))
		}
	})
}

func TestHistoryWrongFile(t *testing.T) {
	for name, file := range map[string]string{"empty": "", "another": "#!/bin/sh\necho hello world", "short": fileMagic[:5]} {
		var wrong *WrongFile
		if _, err := ReadHistory(bytes.NewReader([]byte(file))); !errors.As(err, &wrong) || wrong.Version != -1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	var wrong *WrongFile
	if _, err := ReadHistory(bytes.NewReader(append([]byte(fileMagic), 9))); !errors.As(err, &wrong) || wrong.Version != 9 {
		t.Errorf("a file of version 9: %v", err)
	}
}

func FuzzReadHistory(f *testing.F) {
	var file bytes.Buffer
	w, err := NewWriter(&file)
	if err != nil {
		f.Fatal(err)
	}
	h := &History{}
	op := h.Invoke(1, 4, &pb.PutRequest{Key: []byte("a")})
	err = w.Invoke(op)
	h.Return(op, OK, &pb.PutResponse{}, "")
	if err := errors.Join(err, w.Return(op), w.End()); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ReadHistory(bytes.NewReader(data))
		var wrong *WrongFile
		if (h == nil) != errors.As(err, &wrong) {
			t.Fatalf("a history without an error that says so, or the other way round: %v", err)
		}
	})
}

func BenchmarkHistoryFile(b *testing.B) {
	w, err := NewWriter(io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	h := &History{}
	req, resp := &pb.PutRequest{Key: []byte("s001/register/r/1.2"), Value: []byte("c12-345")}, &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 12345}}
	for b.Loop() {
		op := h.Invoke(7, 4, req)
		if err := w.Invoke(op); err != nil {
			b.Fatal(err)
		}
		h.Return(op, OK, resp, "")
		if err := w.Return(op); err != nil {
			b.Fatal(err)
		}
		h.Ops = h.Ops[:0]
	}
}
