package placement

import (
	"math"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
)

// How much a node is to hold, and to lead, beside the others: its weights.
//
// Replicas and bytes go by the size of disks, so that disks of different sizes fill up together. Leaders, and the load that they
// serve, go by cores: a node with a disk of four times the size serves no more than another of its kind. But a node can lead only
// what it holds. Of its replicas a third leads where there are three of each range, so with twice its share of leaders it leads two of
// three, and to more it is not asked.
//
// Deciders of different index ranges, and those that come after them, must come to the same weights, or they would move replicas to
// and fro. So nothing counts that changes by itself: not how full a disk is, not which nodes are well, nothing that was so before. What
// counts is what each member has announced, beside the median of all, in steps of half a doubling. Disks of a kind weigh the same
// though a file system makes a few percent of difference, and so do nodes that share one.

// norm is the node that weighs one: the median of all members; 0: none says.
type norm struct{ disk, cpus uint64 }

// A node that is far from the others is still one of them: it holds no less than a quarter of what they do, and no more than fourfold,
// for with it so much is lost at once.
const leastWeight, mostWeight = 0.25, 4

func normOf(records []*metapb.NodeRecord) norm {
	var disks, cpus []uint64
	for _, r := range records {
		if r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED {
			continue
		}
		if r.DiskBytes > 0 {
			disks = append(disks, r.DiskBytes)
		}
		if r.Cpus > 0 {
			cpus = append(cpus, uint64(r.Cpus))
		}
	}
	return norm{median(disks), median(cpus)}
}

// median is one of the values, the lower of two, so that of equal nodes each weighs one.
func median(of []uint64) uint64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[(len(of)-1)/2]
}

// weight is a node's beside the one that weighs one; who does not say weighs one.
func weight(has, norm uint64) float64 {
	if has == 0 || norm == 0 {
		return 1
	}
	halves := math.Round(2 * math.Log2(float64(has)/float64(norm)))
	return min(max(math.Exp2(halves/2), leastWeight), mostWeight)
}
