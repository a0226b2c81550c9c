package apply

import (
	"errors"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/eval"
)

// evaluate carries out a command on the range's keys. Whether they are the range's is asked here and now, not when the
// command was proposed: the span may have changed in between, in the log.
func (p *pass) evaluate(cmd *kvpb.Command, mine bool) (done, error) {
	env := p.env(cmd.NowMicros, mine)
	if mutant.Is(mutant.NodeDecides) && mine {
		env.Counters.Revision++
	}
	response, err := p.data.Apply(&env, cmd)
	switch {
	case err == nil:
		p.counters = env.Counters
		p.touched(cmd)
		return done{response: response}, nil
	case errors.Is(err, eval.ErrOutOfSpan):
		return refused(p.moved())
	case eval.Refused(err):
		return refused(err)
	}
	return done{}, err
}

// touched tells of an index whose keys were written as other keys are: a keyspace that is dropped takes its ranges' entries out one
// by one. What else was done is not told in detail.
func (p *pass) touched(cmd *kvpb.Command) {
	if ks := base.KeyspaceID(p.desc.KeyspaceId); ks != base.KeyspaceMeta && ks != base.KeyspaceRoot {
		return
	}
	if _, ok := cmd.Body.(*kvpb.Command_Compaction); ok {
		return
	}
	entry := Indexed{}
	if body, ok := cmd.Body.(*kvpb.Command_DeleteRange); ok {
		req := &pb.DeleteRangeRequest{}
		if proto.Unmarshal(body.DeleteRange, req) == nil && len(req.RangeEnd) == 0 {
			entry.Key = req.Key
		}
	}
	p.out.Indexed = append(p.out.Indexed, entry)
}

// env is the range as a command finds it. What is written in it is told, if that is wanted.
func (p *pass) env(nowMicros int64, mine bool) eval.Env {
	env := eval.Env{
		Range: p.id, Keyspace: base.KeyspaceID(p.desc.KeyspaceId), Start: p.desc.Start, End: p.desc.End,
		Counters: p.counters, NowMicros: nowMicros, WantResponse: mine, WantPrev: p.wantPrev,
	}
	if p.wantEvents {
		env.Events = &p.written
	}
	return env
}

func (p *pass) moved() error {
	return &base.RangeMoved{Range: p.id, Descriptors: []*metapb.RangeDescriptor{p.desc}}
}
