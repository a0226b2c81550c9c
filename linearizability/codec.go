package linearizability

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/followpb"
)

// A history file is a header and a row of records, one for each event, in the order of events: it can be written while the
// run goes on, and what a run that died has written can be read. The header is fileMagic and one byte, the version. A
// record is its length (a varint), its bytes, and their checksum (CRC-32C, four bytes, least first). The last record is
// empty: without it the file is cut short.

// FileVersion is the version of history files. A file of another version is refused by name.
const FileVersion = 1

const (
	fileMagic = "cairn-history"
	// maxRecord bounds a record: a request and its answer are below gRPC's own bounds.
	maxRecord = 128 << 20
)

// Fields of a record. They are protobuf's wire format, so that a field can be added.
const (
	fieldInvoked  protowire.Number = iota + 1 // of both kinds of record: the operation's name
	fieldReturned                             // there is one: it is a return
	fieldClient
	fieldKeyspace
	fieldFinal
	fieldKind // of the request
	fieldRequest
	fieldOutcome // one more than it, so that it is there
	fieldResponse
	fieldError
	fieldTime // on the driver's clock, in nanoseconds
	fieldEnd  // no field: behind all that are known
)

// kindOf numbers the requests that a history can hold: those of the KV and Lease services, watches, and what is asked of nodes. The
// numbers are part of the format.
func kindOf(req proto.Message) (uint64, error) {
	switch req.(type) {
	case *pb.RangeRequest:
		return 1, nil
	case *pb.PutRequest:
		return 2, nil
	case *pb.DeleteRangeRequest:
		return 3, nil
	case *pb.TxnRequest:
		return 4, nil
	case *pb.CompactionRequest:
		return 5, nil
	case *clusterpb.ListNodesRequest:
		return 6, nil
	case *clusterpb.ListRangesRequest:
		return 7, nil
	case *askpb.AskRequest:
		return 8, nil
	case *followpb.FollowRequest:
		return 9, nil
	case *pb.LeaseGrantRequest:
		return 10, nil
	case *pb.LeaseRevokeRequest:
		return 11, nil
	case *pb.LeaseKeepAliveRequest:
		return 12, nil
	case *pb.LeaseTimeToLiveRequest:
		return 13, nil
	case *pb.LeaseLeasesRequest:
		return kinds, nil
	}
	return 0, fmt.Errorf("history: a %T is none that a history can hold", req)
}

// kinds are numbered from 1 to this.
const kinds = 14

// ofKind makes a request and the response that belongs to it.
func ofKind(kind uint64) (req, resp proto.Message, err error) {
	switch kind {
	case 1:
		return &pb.RangeRequest{}, &pb.RangeResponse{}, nil
	case 2:
		return &pb.PutRequest{}, &pb.PutResponse{}, nil
	case 3:
		return &pb.DeleteRangeRequest{}, &pb.DeleteRangeResponse{}, nil
	case 4:
		return &pb.TxnRequest{}, &pb.TxnResponse{}, nil
	case 5:
		return &pb.CompactionRequest{}, &pb.CompactionResponse{}, nil
	case 6:
		return &clusterpb.ListNodesRequest{}, &clusterpb.ListNodesResponse{}, nil
	case 7:
		return &clusterpb.ListRangesRequest{}, &clusterpb.ListRangesResponse{}, nil
	case 8:
		return &askpb.AskRequest{}, &askpb.AskResponse{}, nil
	case 9:
		return &followpb.FollowRequest{}, &followpb.FollowResponse{}, nil
	case 10:
		return &pb.LeaseGrantRequest{}, &pb.LeaseGrantResponse{}, nil
	case 11:
		return &pb.LeaseRevokeRequest{}, &pb.LeaseRevokeResponse{}, nil
	case 12:
		return &pb.LeaseKeepAliveRequest{}, &pb.LeaseKeepAliveResponse{}, nil
	case 13:
		return &pb.LeaseTimeToLiveRequest{}, &pb.LeaseTimeToLiveResponse{}, nil
	case kinds:
		return &pb.LeaseLeasesRequest{}, &pb.LeaseLeasesResponse{}, nil
	}
	return nil, nil, fmt.Errorf("a request of kind %d", kind)
}

// Writer writes a history file event by event. It is not safe for concurrent use. After an error the file ends with what
// was written before.
type Writer struct {
	to     io.Writer
	record []byte // reused
	frame  []byte // reused
}

// NewWriter begins a file.
func NewWriter(to io.Writer) (*Writer, error) {
	if _, err := to.Write(append([]byte(fileMagic), FileVersion)); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Writer{to: to}, nil
}

// Invoke writes that an operation was invoked. Its return, if it has one, follows with Return.
func (w *Writer) Invoke(op *Op) error {
	kind, err := kindOf(op.Request)
	if err != nil {
		return err
	}
	b := w.varint(w.record[:0], fieldInvoked, uint64(op.Invoked))
	b = w.varint(b, fieldClient, uint64(op.Client))
	b = w.varint(b, fieldKeyspace, op.Keyspace)
	b = w.varint(b, fieldKind, kind)
	b = w.time(b, op.Began)
	if op.Final {
		b = w.varint(b, fieldFinal, 1)
	}
	return w.message(b, fieldRequest, op.Request)
}

// Return writes how an operation ended.
func (w *Writer) Return(op *Op) error {
	b := w.varint(w.record[:0], fieldInvoked, uint64(op.Invoked))
	b = w.varint(b, fieldReturned, uint64(op.Returned))
	b = w.varint(b, fieldOutcome, uint64(op.Outcome)+1)
	b = w.time(b, op.Ended)
	if op.Err != "" {
		b = protowire.AppendTag(b, fieldError, protowire.BytesType)
		b = protowire.AppendString(b, op.Err)
	}
	if op.Response == nil {
		w.record = b
		return w.flush()
	}
	return w.message(b, fieldResponse, op.Response)
}

// End ends the file: it says that nothing is missing.
func (w *Writer) End() error {
	w.record = w.record[:0]
	return w.flush()
}

func (w *Writer) varint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// time writes a time, if there is one: a driver whose history has no clock says none.
func (w *Writer) time(b []byte, t time.Duration) []byte {
	if t == 0 {
		return b
	}
	return w.varint(b, fieldTime, uint64(t))
}

func (w *Writer) message(b []byte, field protowire.Number, m proto.Message) (err error) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(proto.Size(m)))
	if w.record, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, m); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return w.flush()
}

func (w *Writer) flush() error {
	w.frame = binary.AppendUvarint(w.frame[:0], uint64(len(w.record)))
	w.frame = append(w.frame, w.record...)
	w.frame = binary.LittleEndian.AppendUint32(w.frame, crc32.Checksum(w.record, castagnoli()))
	if _, err := w.to.Write(w.frame); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the library makes it once

// WrongFile: this is not a history file, or one of a version that is not known here.
type WrongFile struct{ Version int } // -1: no history file

func (e *WrongFile) Error() string {
	if e.Version < 0 {
		return "this is not a history file"
	}
	return fmt.Sprintf("a history file of version %d; this program reads version %d", e.Version, FileVersion)
}

// CutShort: the file has no end: its run was ended from outside.
type CutShort struct {
	Records int   // that were read
	Offset  int64 // where they end
}

func (e *CutShort) Error() string {
	return fmt.Sprintf("the history is cut short after record %d, at byte %d", e.Records, e.Offset)
}

// Damaged: a record is not what was written, or says what cannot be.
type Damaged struct {
	Records int   // that were read before it
	Offset  int64 // where it begins
	Cause   error
}

func (e *Damaged) Error() string {
	return fmt.Sprintf("the history is damaged behind record %d, at byte %d: %v", e.Records, e.Offset, e.Cause)
}
func (e *Damaged) Unwrap() error { return e.Cause }

// ReadHistory reads a file. With a CutShort or a Damaged comes the history up to there: what had not returned is Unknown.
// With any other error comes none.
func ReadHistory(from io.Reader) (*History, error) {
	in := bufio.NewReaderSize(from, 1<<20)
	header := make([]byte, len(fileMagic)+1)
	if _, err := io.ReadFull(in, header); err != nil || string(header[:len(fileMagic)]) != fileMagic {
		return nil, &WrongFile{Version: -1}
	}
	if v := header[len(fileMagic)]; v != FileVersion {
		return nil, &WrongFile{Version: int(v)}
	}
	r := &reader{open: make(map[int64]*Op), history: &History{}, offset: int64(len(header))}
	for {
		record, size, err := r.next(in)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return r.history, &CutShort{r.records, r.offset}
		case err == nil && len(record) == 0:
			return r.history, nil
		case err == nil:
			err = r.apply(record)
		}
		if err != nil {
			return r.history, &Damaged{r.records, r.offset, err}
		}
		r.records++
		r.offset += size
	}
}

type reader struct {
	history *History
	open    map[int64]*Op // invoked and not returned
	records int
	offset  int64
	buffer  []byte // reused
	fields  fields // of the record that is read
}

var errChecksum = errors.New("the checksum is another one")

// next reads a record: io.EOF at the end of the file, io.ErrUnexpectedEOF within one.
func (r *reader) next(in *bufio.Reader) (record []byte, size int64, err error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, 0, err
	}
	if n > maxRecord {
		return nil, 0, fmt.Errorf("a record of %d bytes", n)
	}
	// A length that is damaged must not take the memory that it names: what is not there is not asked for.
	r.buffer = r.buffer[:0]
	for need := int(n) + crc32.Size; len(r.buffer) < need; {
		step := min(need-len(r.buffer), 1<<20)
		at := len(r.buffer)
		r.buffer = append(r.buffer, make([]byte, step)...)
		if _, err := io.ReadFull(in, r.buffer[at:]); err != nil {
			return nil, 0, io.ErrUnexpectedEOF
		}
	}
	record, sum := r.buffer[:n], r.buffer[n:]
	if crc32.Checksum(record, castagnoli()) != binary.LittleEndian.Uint32(sum) {
		return nil, 0, errChecksum
	}
	return record, int64(len(binary.AppendUvarint(nil, n))) + int64(len(r.buffer)), nil
}

// fields are a record's, by number, as far as they are there. Fields of later versions are passed over.
type fields struct {
	there  [fieldEnd]bool
	number [fieldEnd]uint64
	bytes  [fieldEnd][]byte // they are the buffer's
}

func (f *fields) parse(b []byte) error {
	*f = fields{}
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case num >= fieldEnd:
			n = protowire.ConsumeFieldValue(num, kind, b)
		case kind == protowire.VarintType:
			f.there[num] = true
			f.number[num], n = protowire.ConsumeVarint(b)
		case kind == protowire.BytesType:
			f.there[num] = true
			f.bytes[num], n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d is not of its type", num)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}

// apply adds one event to the history. Events are in order: each has a place behind the one before.
func (r *reader) apply(record []byte) error {
	f := &r.fields
	if err := f.parse(record); err != nil {
		return err
	}
	invoked := int64(f.number[fieldInvoked])
	if f.there[fieldReturned] {
		return r.returned(invoked, f)
	}
	req, _, err := ofKind(f.number[fieldKind])
	if err != nil {
		return err
	}
	if invoked <= r.history.clock {
		return fmt.Errorf("event %d comes behind event %d", invoked, r.history.clock)
	}
	op := &Op{
		Client: int(f.number[fieldClient]), Keyspace: f.number[fieldKeyspace], Invoked: invoked,
		Final: f.number[fieldFinal] != 0, Request: req, Began: time.Duration(f.number[fieldTime]),
	}
	if err := proto.Unmarshal(f.bytes[fieldRequest], op.Request); err != nil {
		return err
	}
	r.history.clock = invoked
	r.history.Ops = append(r.history.Ops, op)
	r.open[invoked] = op
	return nil
}

func (r *reader) returned(invoked int64, f *fields) error {
	op := r.open[invoked]
	if op == nil {
		return fmt.Errorf("operation %d returns, and was not under way", invoked)
	}
	at := int64(f.number[fieldReturned])
	outcome := f.number[fieldOutcome]
	if outcome == 0 || outcome > uint64(Failed)+1 {
		return fmt.Errorf("operation %d has the outcome %d", invoked, outcome)
	}
	op.Outcome = Outcome(outcome - 1)
	if op.Outcome == Unknown {
		at = 0 // as History.Return has it
		r.history.clock++
	} else if at <= r.history.clock {
		return fmt.Errorf("event %d comes behind event %d", at, r.history.clock)
	}
	if op.Outcome == OK {
		kind, err := kindOf(op.Request)
		if err != nil {
			return err
		}
		if _, op.Response, err = ofKind(kind); err != nil {
			return err
		}
		if err := proto.Unmarshal(f.bytes[fieldResponse], op.Response); err != nil {
			return err
		}
	}
	op.Returned, op.Err, op.Ended = at, string(f.bytes[fieldError]), time.Duration(f.number[fieldTime])
	r.history.clock = max(r.history.clock, at)
	delete(r.open, invoked)
	return nil
}
