package checkers

import (
	"slices"
	"strings"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/linearizability"
)

// What watchers ask, in stories:
//
//	> 1 nodes              the nodes' records
//	< 1 ok 0 2:active,7,1,3,addr   of node 2: its state, generation, epoch, incarnation, address; "remembered" may follow
//	> 1 index              the ranges; "final" may follow
//	< 1 ok 0 7@3,a,c,1.2+4.3,9     range 7 at generation 3, [a, c), replica 1 on node 2 and 4 on node 3, the next is 9; _ is no key
//	> 1 ask b              one node for the key b; "fresh" for a linearizable read, "final" may follow
//	< 1 ok 0 served 2.3            node 2 in its start 3 served; or "fenced 2.3", "refused 2.3"; then what it said of the key's
//	                               range: its descriptor, and "leads"
const watchedKeyspace = 100

// watchRequest makes a watcher's request, and says whether it is one.
func watchRequest(op *linearizability.Op, f []string) bool {
	op.Final = slices.Contains(f, "final")
	switch f[0] {
	case "nodes":
		op.Request = &clusterpb.ListNodesRequest{}
	case "index":
		op.Request = &clusterpb.ListRangesRequest{}
	case "ask":
		op.Request = &askpb.AskRequest{Key: []byte(f[1]), KeyspaceId: watchedKeyspace, Serializable: !slices.Contains(f, "fresh")}
	default:
		return false
	}
	return true
}

func watchAnswer(op *linearizability.Op, f []string) bool {
	switch op.Request.(type) {
	case *clusterpb.ListNodesRequest:
		resp := &clusterpb.ListNodesResponse{}
		for _, word := range f {
			if word == "remembered" {
				resp.Remembered = true
				continue
			}
			resp.Nodes = append(resp.Nodes, &clusterpb.NodeInfo{Record: storyNode(word)})
		}
		op.Response = resp
	case *clusterpb.ListRangesRequest:
		resp := &clusterpb.ListRangesResponse{}
		for _, word := range f {
			resp.Ranges = append(resp.Ranges, &clusterpb.IndexedRange{Keyspace: "k", Descriptor_: storyRange(word)})
		}
		op.Response = resp
	case *askpb.AskRequest:
		node, inc, _ := strings.Cut(f[1], ".")
		resp := &askpb.AskResponse{NodeId: uint64(number(node)), Incarnation: uint64(number(inc)), Served: f[0] == "served", Fenced: f[0] == "fenced"}
		if len(f) > 2 {
			resp.Route = &clusterpb.Route{KeyspaceId: watchedKeyspace, Range: storyRange(f[2]), Leads: slices.Contains(f, "leads")}
		}
		op.Response = resp
	default:
		return false
	}
	return true
}

func storyNode(s string) *metapb.NodeRecord {
	id, rest, _ := strings.Cut(s, ":")
	p := strings.Split(rest, ",")
	return &metapb.NodeRecord{
		NodeId: uint64(number(id)), State: metapb.NodeState(metapb.NodeState_value["NODE_STATE_"+strings.ToUpper(p[0])]),
		Generation: uint64(number(p[1])), Epoch: uint64(number(p[2])), Incarnation: uint64(number(p[3])), Address: p[4],
	}
}

func storyRange(s string) *metapb.RangeDescriptor {
	id, rest, _ := strings.Cut(s, "@")
	p := strings.Split(rest, ",")
	key := func(s string) []byte { return []byte(strings.ReplaceAll(s, "_", "")) }
	d := &metapb.RangeDescriptor{
		RangeId: uint64(number(id)), KeyspaceId: watchedKeyspace, Generation: uint64(number(p[0])), Start: key(p[1]), End: key(p[2]),
		NextReplicaId: uint64(number(p[4])),
	}
	for r := range strings.SplitSeq(p[3], "+") {
		replica, node, _ := strings.Cut(r, ".")
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(number(replica)), NodeId: uint64(number(node)), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}
