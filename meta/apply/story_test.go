package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// TestStories runs the dialogues in testdata/stories. Verbs: range (bootstraps a descriptor), apply (crash: the batch is
// dropped; one entry a line, see parse), get (key=), right (id=: the state of a range that was cut off), move-to (id=: the
// story goes on with that one), leases (what the range holds of them), index (the descriptor that the index holds under that of the input).
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{}
		eng := openEngine(t)
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			switch c.Cmd {
			case "range":
				s.r = bootstrap(t, eng, 1, descriptor(t, c.Input))
				return ""
			case "apply":
				return s.apply(t, c.Input, c.HasArg("crash"))
			case "get":
				var key string
				c.ScanArgs(t, "key", &key)
				return s.get(t, key)
			case "right":
				var id uint64
				c.ScanArgs(t, "id", &id)
				return s.right(base.RangeID(id))
			case "move-to":
				var id uint64
				c.ScanArgs(t, "id", &id)
				return s.moveTo(t, base.RangeID(id))
			case "leases":
				return leases(t, eng, s.r.sm.ID())
			case "index":
				return s.index(t, descriptor(t, c.Input))
			}
			c.Fatalf(t, "there is no verb %s", c.Cmd)
			return ""
		})
	})
}

type story struct {
	r      *replica
	seq    uint64
	frozen *kvpb.FrozenRange // as the last Freeze answered
}

func descriptor(t *testing.T, s string) *metapb.RangeDescriptor {
	d, err := desctest.Parse(s)
	must(t, err)
	return d
}

func (s *story) apply(t *testing.T, input string, crash bool) string {
	var entries []*raftpb.Entry
	at := s.r.sm.Descriptor() // as the proposer knows it
	for _, l := range strings.Split(input, "\n") {
		index := s.r.sm.AppliedIndex() + uint64(len(entries)) + 1
		e, next := s.parse(t, index, l, at)
		entries, at = append(entries, e), next
	}
	var b strings.Builder
	if err := s.r.apply(t, crash, entries...); err != nil {
		var c *base.Corruption
		if errors.As(err, &c) {
			fmt.Fprintf(&b, "corrupt: %s\n", c.Where) // the cause is protobuf's, whose words vary
		} else {
			fmt.Fprintf(&b, "%v\n", err)
		}
	} else {
		s.print(&b)
	}
	v, _ := s.r.at(t)
	fmt.Fprintf(&b, "applied %d.%d, revision %d, compacted %d\n", v.AppliedIndex, v.AppliedTerm, v.Counters.Revision, v.Counters.Compacted)
	return b.String()
}

func (s *story) print(b *strings.Builder) {
	for _, o := range s.r.out.Outcomes {
		fmt.Fprintf(b, "%s/%d: ", o.ID.Node, o.ID.Seq)
		switch r := o.Response.(type) {
		case nil:
			fmt.Fprintf(b, "%T: %v\n", o.Err, o.Err)
		case *pb.PutResponse:
			fmt.Fprintf(b, "put at %d\n", r.Header.GetRevision())
		case *pb.DeleteRangeResponse:
			fmt.Fprintf(b, "deleted %d at %d\n", r.Deleted, r.Header.GetRevision())
		case *pb.CompactionResponse:
			fmt.Fprintf(b, "compacted at %d\n", r.Header.GetRevision())
		case *kvpb.ChangeReplicasResponse:
			fmt.Fprintf(b, "now %s\n", desc.Format(r.Descriptor_))
		case *kvpb.SplitResponse:
			fmt.Fprintf(b, "split into %s\n     and   %s\n", desc.Format(r.Left), desc.Format(r.Right))
		case *kvpb.PublishDescriptorResponse:
			fmt.Fprintf(b, "stored %v, now %s\n", r.Stored, desc.Format(r.Current))
		default:
			s.printMerge(b, r)
		}
	}
	for _, m := range s.r.out.Merges {
		fmt.Fprintf(b, "takes over %s\n", base.RangeID(m.Descriptor_.RangeId))
	}
	printLeases(b, &s.r.out)
	a := s.r.out.Applied
	for _, c := range a.Changes {
		fmt.Fprintf(b, "raft: %q\n", raftpb.ConfChangesToString(c.Changes))
	}
	if a.Descriptor != nil {
		fmt.Fprintf(b, "descriptor %s\n", desc.Format(a.Descriptor))
	}
	if a.Removed {
		b.WriteString("removed\n")
	}
}

// parse reads one entry: [n<node>] put <key> <value> | del <key> | compact <revision> | change <descriptor> (from the one
// before it in the input) | stale <descriptor> (with generation 1) | lying <descriptor> (the conf change says something
// else) | bare <descriptor> (without a conf change) | split <key> <right range id> | split-stale … (generation 1) | publish <descriptor> | publish-at <key> <descriptor> |
// empty | garbage | nobody | unknown | v1 | confused (a conf change with a put) | gap. The steps of a merge are in merge_test.go, the commands of
// leases in lease_test.go.
func (s *story) parse(t *testing.T, index uint64, line string, at *metapb.RangeDescriptor) (*raftpb.Entry, *metapb.RangeDescriptor) {
	s.seq++
	id := raftgroup.ProposalID{Node: 1, Seq: s.seq}
	if rest, ok := strings.CutPrefix(line, "n2 "); ok {
		id.Node, line = 2, rest
	}
	verb, arg, _ := strings.Cut(line, " ")
	first, second, _ := strings.Cut(arg, " ")
	learner := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(77))}}}
	switch verb {
	case "put":
		return entry(t, index, id, put(t, first, second), nil), at
	case "del":
		return entry(t, index, id, del(t, first), nil), at
	case "compact":
		var rev int64
		_, err := fmt.Sscan(first, &rev)
		must(t, err)
		return entry(t, index, id, compactTo(t, rev), nil), at
	case "change", "lying", "bare", "stale", "again":
		to := descriptor(t, arg)
		if verb == "again" { // the step from the generation before, which has been taken
			from := proto.CloneOf(to)
			from.Generation, from.Replicas, from.NextReplicaId = to.Generation-1, to.Replicas[:len(to.Replicas)-1], to.NextReplicaId-1
			cmd, change, err := apply.Change(from, to)
			must(t, err)
			return entry(t, index, id, cmd, change), at
		}
		cmd, change, err := apply.Change(at, to)
		must(t, err)
		switch verb {
		case "lying":
			return entry(t, index, id, cmd, learner), at
		case "bare":
			return entry(t, index, id, cmd, nil), at
		case "stale":
			cmd.GetChangeReplicas().ExpectedGeneration = 1
			return entry(t, index, id, cmd, change), at
		}
		return entry(t, index, id, cmd, change), to
	case "split", "split-stale":
		var right uint64
		_, err := fmt.Sscan(second, &right)
		must(t, err)
		cmd := &kvpb.Command{Body: &kvpb.Command_Split{Split: &kvpb.Split{ExpectedGeneration: at.Generation, Key: []byte(first), RightRangeId: right}}}
		if verb == "split-stale" {
			cmd.GetSplit().ExpectedGeneration = 1
		}
		if left, _, err := desc.Split(at, []byte(first), base.RangeID(right)); err == nil && verb == "split" && base.KeyspaceID(at.KeyspaceId).Splits() {
			at = left
		}
		return entry(t, index, id, cmd, nil), at
	case "publish":
		d := descriptor(t, arg)
		return entry(t, index, id, publish(d, route.DescriptorKey(d)), nil), at
	case "publish-at":
		return entry(t, index, id, publish(descriptor(t, second), []byte(first)), nil), at
	case "empty":
		return rawEntry(index, raftpb.EntryNormal, nil), at
	case "garbage":
		return rawEntry(index, raftpb.EntryNormal, raftgroup.EncodeProposal(id, []byte{0xff})), at
	case "nobody":
		return rawEntry(index, raftpb.EntryNormal, []byte("short")), at
	case "unknown":
		return entry(t, index, id, &kvpb.Command{}, nil), at
	case "v1":
		return rawEntry(index, raftpb.EntryConfChange, nil), at
	case "confused":
		return entry(t, index, id, put(t, "a", "b"), learner), at
	case "gap":
		return rawEntry(index+1, raftpb.EntryNormal, nil), at
	}
	cmd, next := s.parseMerge(t, verb, arg, at)
	return entry(t, index, id, cmd, nil), next
}

func publish(d *metapb.RangeDescriptor, key []byte) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_PublishDescriptor{
		PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: d},
	}}
}

func (s *story) right(id base.RangeID) string {
	v, err := apply.ReadView(s.r.eng, id)
	if err != nil {
		return err.Error() + "\n"
	}
	return fmt.Sprintf("%s\napplied %d.%d, revision %d, compacted %d\n", desc.Format(v.Descriptor), v.AppliedIndex, v.AppliedTerm, v.Counters.Revision, v.Counters.Compacted)
}

func (s *story) moveTo(t *testing.T, id base.RangeID) string {
	sm, err := apply.Load(s.r.eng, id)
	must(t, err)
	s.r.sm = sm
	return ""
}

func (s *story) get(t *testing.T, key string) string {
	v, _ := s.r.at(t)
	resp, err := eval.Range(s.r.eng, v.Env(), &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, kv := range resp.Kvs {
		fmt.Fprintf(&b, "%s = %s, version %d, created at %d, written at %d\n", kv.Key, kv.Value, kv.Version, kv.CreateRevision, kv.ModRevision)
	}
	return b.String() + fmt.Sprintf("%d of %d\n", len(resp.Kvs), resp.Count)
}

func (s *story) index(t *testing.T, of *metapb.RangeDescriptor) string {
	v, _ := s.r.at(t)
	resp, err := eval.Range(s.r.eng, v.Env(), &pb.RangeRequest{Key: route.DescriptorKey(of)})
	must(t, err)
	if len(resp.Kvs) == 0 {
		return "nothing\n"
	}
	d, err := desc.Decode(resp.Kvs[0].Value)
	must(t, err)
	return desc.Format(d) + "\n"
}
