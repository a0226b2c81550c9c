package eval_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/kv/eval"
)

// The small language of the stories in testdata, one command a line:
//
//	put KEY [VALUE] [lease=N] [prev] [ignore-value] [ignore-lease]
//	del KEY [END] [prev]
//	range KEY [END] [rev=N] [limit=N] [order=ascend|descend] [target=version|create|mod|value] [keys-only] [count-only]
//	      [min-mod=N] [max-mod=N] [min-create=N] [max-create=N]
//	compact REV
//	txn
//	  if version|create|mod|value|lease KEY [END] =|!=|<|> VALUE
//	  then COMMAND
//	  else COMMAND
//
// A nested txn has its lines indented deeper. In keys and values \0 is the byte 0 and ” is empty.
type parser struct {
	lines []string
	at    int
	bad   func(format string, args ...any)
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func unquote(tok string) []byte {
	if tok == "''" {
		return nil
	}
	return []byte(strings.ReplaceAll(tok, `\0`, "\x00"))
}

// words are the tokens of a command: those without "=" in order, and the options.
func (p *parser) words(s string) (plain []string, options map[string]string) {
	options = map[string]string{}
	for _, w := range strings.Fields(s) {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case ok && key != "":
			options[key] = value
		case slices.Contains([]string{"prev", "ignore-value", "ignore-lease", "keys-only", "count-only"}, w):
			options[w] = "true"
		default:
			plain = append(plain, w)
		}
	}
	return plain, options
}

func (p *parser) number(options map[string]string, name string) int64 {
	v, ok := options[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		p.bad("%s: %v", name, err)
	}
	return n
}

// request parses one command, whose first line is s and belongs to the line at p.at.
func (p *parser) request(s string) proto.Message {
	plain, opt := p.words(s)
	arg := func(i int) []byte {
		if i >= len(plain) {
			return nil
		}
		return unquote(plain[i])
	}
	deep := indent(p.lines[p.at])
	p.at++
	switch plain[0] {
	case "put":
		return &pb.PutRequest{
			Key: arg(1), Value: arg(2), Lease: p.number(opt, "lease"), PrevKv: opt["prev"] != "",
			IgnoreValue: opt["ignore-value"] != "", IgnoreLease: opt["ignore-lease"] != "",
		}
	case "del":
		return &pb.DeleteRangeRequest{Key: arg(1), RangeEnd: arg(2), PrevKv: opt["prev"] != ""}
	case "range":
		return &pb.RangeRequest{
			Key: arg(1), RangeEnd: arg(2), Revision: p.number(opt, "rev"), Limit: p.number(opt, "limit"),
			KeysOnly: opt["keys-only"] != "", CountOnly: opt["count-only"] != "",
			SortOrder:      pb.RangeRequest_SortOrder(p.enum(opt["order"], pb.RangeRequest_SortOrder_value)),
			SortTarget:     pb.RangeRequest_SortTarget(p.enum(opt["target"], pb.RangeRequest_SortTarget_value)),
			MinModRevision: p.number(opt, "min-mod"), MaxModRevision: p.number(opt, "max-mod"),
			MinCreateRevision: p.number(opt, "min-create"), MaxCreateRevision: p.number(opt, "max-create"),
		}
	case "compact":
		rev, err := strconv.ParseInt(plain[1], 10, 64)
		if err != nil {
			p.bad("%v", err)
		}
		return &pb.CompactionRequest{Revision: rev}
	case "txn":
		return p.txn(deep)
	}
	p.bad("what is %q?", s)
	return nil
}

func (p *parser) enum(name string, values map[string]int32) int32 {
	if name == "" {
		return 0
	}
	if n, err := strconv.Atoi(name); err == nil {
		return int32(n)
	}
	v, ok := values[strings.ToUpper(name)]
	if !ok {
		p.bad("what is %q?", name)
	}
	return v
}

// txn takes the lines that are indented deeper than the transaction's own.
func (p *parser) txn(deep int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for p.at < len(p.lines) && indent(p.lines[p.at]) > deep {
		word, rest, _ := strings.Cut(strings.TrimSpace(p.lines[p.at]), " ")
		switch word {
		case "if":
			t.Compare = append(t.Compare, p.compare(rest))
			p.at++
		case "then":
			t.Success = append(t.Success, p.op(rest))
		case "else":
			t.Failure = append(t.Failure, p.op(rest))
		default:
			p.bad("what is %q in a txn?", word)
		}
	}
	return t
}

func (p *parser) op(s string) *pb.RequestOp {
	if s == "nothing" {
		p.at++
		return &pb.RequestOp{}
	}
	switch r := p.request(s).(type) {
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case *pb.TxnRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
	}
	p.bad("%q cannot be in a txn", s)
	return nil
}

func (p *parser) compare(s string) *pb.Compare {
	f := strings.Fields(s)
	c := &pb.Compare{Key: unquote(f[1])}
	if len(f) == 5 {
		c.RangeEnd = unquote(f[2])
	}
	c.Result = map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, "<": pb.Compare_LESS, ">": pb.Compare_GREATER,
	}[f[len(f)-2]]
	c.Target = pb.Compare_CompareTarget(p.enum(f[0], pb.Compare_CompareTarget_value))
	last := f[len(f)-1]
	if c.Target == pb.Compare_VALUE {
		c.TargetUnion = &pb.Compare_Value{Value: unquote(last)}
		return c
	}
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		p.bad("%v", err)
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: n}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: n}
	}
	return c
}

// check is what the server does with a request before it is proposed or read.
func check(req proto.Message) error {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return eval.CheckRange(r)
	case *pb.PutRequest:
		return eval.CheckPut(r, eval.DefaultLimits())
	case *pb.DeleteRangeRequest:
		return eval.CheckDeleteRange(r, eval.DefaultLimits())
	case *pb.TxnRequest:
		return eval.CheckTxn(r, eval.DefaultLimits())
	}
	return nil
}

// command puts a request into the form in which it is in the log.
func command(req proto.Message, now int64) *kvpb.Command {
	raw, err := proto.Marshal(req)
	if err != nil {
		panic(err)
	}
	c := &kvpb.Command{NowMicros: now}
	switch req.(type) {
	case *pb.PutRequest:
		c.Body = &kvpb.Command_Put{Put: raw}
	case *pb.DeleteRangeRequest:
		c.Body = &kvpb.Command_DeleteRange{DeleteRange: raw}
	case *pb.TxnRequest:
		c.Body = &kvpb.Command_Txn{Txn: raw}
	case *pb.CompactionRequest:
		c.Body = &kvpb.Command_Compaction{Compaction: raw}
	}
	return c
}

// show writes a response as the stories have it.
func show(b *strings.Builder, indent string, m proto.Message) {
	switch r := m.(type) {
	case *pb.PutResponse:
		fmt.Fprintf(b, "%sput: rev %d\n", indent, r.Header.GetRevision())
		if r.PrevKv != nil {
			fmt.Fprintf(b, "%s  before %s\n", indent, showKV(r.PrevKv))
		}
	case *pb.DeleteRangeResponse:
		fmt.Fprintf(b, "%sdel: rev %d, deleted %d\n", indent, r.Header.GetRevision(), r.Deleted)
		for _, kv := range r.PrevKvs {
			fmt.Fprintf(b, "%s  before %s\n", indent, showKV(kv))
		}
	case *pb.RangeResponse:
		fmt.Fprintf(b, "%srange: rev %d, count %d", indent, r.Header.GetRevision(), r.Count)
		if r.More {
			b.WriteString(", more")
		}
		b.WriteString("\n")
		for _, kv := range r.Kvs {
			fmt.Fprintf(b, "%s  %s\n", indent, showKV(kv))
		}
	case *pb.TxnResponse:
		fmt.Fprintf(b, "%stxn: rev %d, %s\n", indent, r.Header.GetRevision(), map[bool]string{true: "succeeded", false: "failed"}[r.Succeeded])
		for _, op := range r.Responses {
			showOp(b, indent+"  ", op)
		}
	case *pb.CompactionResponse:
		fmt.Fprintf(b, "%scompact: rev %d\n", indent, r.Header.GetRevision())
	}
}

func showOp(b *strings.Builder, indent string, op *pb.ResponseOp) {
	switch r := op.Response.(type) {
	case *pb.ResponseOp_ResponseRange:
		show(b, indent, r.ResponseRange)
	case *pb.ResponseOp_ResponsePut:
		show(b, indent, r.ResponsePut)
	case *pb.ResponseOp_ResponseDeleteRange:
		show(b, indent, r.ResponseDeleteRange)
	case *pb.ResponseOp_ResponseTxn:
		show(b, indent, r.ResponseTxn)
	}
}

func showKV(kv *mvccpb.KeyValue) string {
	s := fmt.Sprintf("%s=%s (create %d, mod %d, version %d", quote(kv.Key), quote(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		s += fmt.Sprintf(", lease %d", kv.Lease)
	}
	return s + ")"
}

func quote(b []byte) string { return strings.ReplaceAll(string(b), "\x00", `\0`) }
