package gossip

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// check says what is wrong with a frame from another node. Nothing of such a frame is taken: its sender is another version, or
// broken, and what is right in it comes by other ways.
func check(g *rangepb.Gossip) error {
	if len(g.Digest) > base.GossipDigest || len(g.Wants) > base.GossipDigest {
		return fmt.Errorf("it names %d versions and wants %d; at most %d are sent", len(g.Digest), len(g.Wants), base.GossipDigest)
	}
	size := 0
	for _, e := range g.Entries {
		if err := checkEntry(e); err != nil {
			return err
		}
		size += proto.Size(e)
	}
	if size > base.GossipFrameBytes+base.GossipEntryBytes {
		return fmt.Errorf("its entries have %d bytes; at most %d are sent", size, base.GossipFrameBytes)
	}
	last := uint64(0)
	for _, v := range g.Digest {
		if err := checkVersion(v); err != nil {
			return err
		}
		if v.NodeId <= last || v.NodeId < g.DigestFrom || v.NodeId > g.DigestTo {
			return fmt.Errorf("its digest of %d to %d names node %d after %d", g.DigestFrom, g.DigestTo, v.NodeId, last)
		}
		last = v.NodeId
	}
	return nil
}

func checkVersion(v *rangepb.GossipVersion) error {
	if v.GetNodeId() == 0 || v.GetIncarnation() == 0 || v.GetSeq() == 0 {
		return fmt.Errorf("a version that none is: node %d, start %d, number %d", v.GetNodeId(), v.GetIncarnation(), v.GetSeq())
	}
	return nil
}

func checkEntry(e *rangepb.GossipEntry) error {
	if err := checkVersion(e.GetVersion()); err != nil {
		return err
	}
	id := base.NodeID(e.Version.NodeId)
	if n := proto.Size(e); n > base.GossipEntryBytes {
		return fmt.Errorf("the entry of %s has %d bytes; at most %d are sent", id, n, base.GossipEntryBytes)
	}
	if err := join.CheckAddress(e.Address); err != nil {
		return fmt.Errorf("the address of %s: %w", id, err)
	}
	if r := e.Record; r != nil && base.NodeID(r.NodeId) != id {
		return fmt.Errorf("the entry of %s has the record of %s", id, base.NodeID(r.NodeId))
	}
	if rate := e.Load.GetRequestsPerSecond(); !(rate >= 0) || math.IsInf(rate, 0) {
		return errors.New("a load that none is")
	}
	return nil
}
