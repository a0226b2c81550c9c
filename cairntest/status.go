package cairntest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// statusTimeout bounds one question for the state of all nodes.
const statusTimeout = 5 * time.Second

// status is the state of all ranges, as a node that runs collects it.
func (c *Cluster) status(ctx context.Context) (*clusterpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	failed := []error{errors.New("no node runs")}
	for _, a := range c.running() {
		conn, err := grpc.NewClient(a, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return nil, err
		}
		resp, err := clusterpb.NewClusterClient(conn).Status(ctx, &clusterpb.StatusRequest{Ranges: true})
		_ = conn.Close() // nothing is under way on it
		if err == nil {
			return resp, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// replicated complains of a range that does not have all its voters yet, or no leader.
func (c *Cluster) replicated(ctx context.Context) error {
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	if len(s.Ranges) == 0 {
		return errors.New("no ranges")
	}
	for _, r := range s.Ranges {
		voters := 0
		for _, rep := range r.Descriptor_.GetReplicas() {
			if rep.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER {
				voters++
			}
		}
		if want := min(len(c.nodes), 3); voters < want || r.LeaderNode == 0 {
			return fmt.Errorf("range %d (%s) has %d voters of %d, and its leader is node %d", r.Descriptor_.GetRangeId(), r.Keyspace, voters, want, r.LeaderNode)
		}
	}
	return nil
}

// leads is which node leads the range of a key.
func (c *Cluster) leads(ctx context.Context, keyspace, key string) (int, error) {
	s, err := c.status(ctx)
	if err != nil {
		return 0, err
	}
	addrs := map[uint64]string{}
	for _, n := range s.Nodes {
		addrs[n.Node.GetNodeId()] = n.Node.GetAddress()
	}
	for _, r := range s.Ranges {
		d := r.Descriptor_
		if r.Keyspace != keyspace || bytes.Compare([]byte(key), d.GetStart()) < 0 || len(d.GetEnd()) > 0 && bytes.Compare([]byte(key), d.GetEnd()) >= 0 {
			continue
		}
		for _, m := range c.nodes {
			if m.addr == addrs[r.LeaderNode] && m.node != nil {
				return m.i, nil
			}
		}
		return 0, fmt.Errorf("range %d is led by node %d (%s)", d.GetRangeId(), r.LeaderNode, addrs[r.LeaderNode])
	}
	return 0, errors.New("there is no such range")
}
