package mutant

// shapes lists the mistakes in what cuts ranges in two, merges them, and reads several together.
func shapes() []Mutant {
	return []Mutant{
		{SplitNotAtomic, "split-not-atomic", "what Raft needs of a range that was cut off is written after the split", kinSplit},
		{SplitForgetsVote, "split-forgets-vote", "a split begins the right part's term anew, whatever its replica voted before it was there", kinSplit},
		{SplitRaisesDead, "split-raises-dead", "a split brings a replica to life that was removed from the right part meanwhile", kinSplit},
		{SplitForgetsRevision, "split-forgets-revision", "the right part counts its revisions from the beginning", kinSplit},
		{DestroyOldSpan, "destroy-old-span", "a replica that is removed takes the keys with it that were cut off its range a moment ago", kinSplit},
		{ExciseNewSpan, "excise-new-span", "a snapshot from behind a split leaves the right part's keys of before where no range is", kinNeighbour},
		{SnapshotOverNeighbour, "snapshot-over-neighbour", "a snapshot is taken in over keys that are another range's here", kinNeighbour},
		{MergeAnyGeneration, "merge-any-generation", "a range takes its neighbour over whatever has happened to either since", kinMerge},
		{MergeForgetsRevision, "merge-forgets-revision", "a range that took another over goes on with its own revision alone", kinMerge},
		{FrozenTakesWrites, "frozen-takes-writes", "a range that is to be merged goes on taking writes", kinMerge},
		{FrozenServesReads, "frozen-serves-reads", "a range that is to be merged goes on serving reads", kinMerge},
		{MergeUnconfirmed, "merge-unconfirmed", "nobody asks whether all replicas of the right range have applied all of it", kinMerge},
		{ConfirmUnsynced, "confirm-unsynced", "a node says that it has all of the right range before that is on disk", kinMerge},
		{ThawAnyway, "thaw-anyway", "a range thaws though it may still be merged", kinMerge},
		{AbsorbedAtOnce, "absorbed-at-once", "a range that took another over changes again before that one's replicas are gone", kinMerge},
		{MergeLeavesReplica, "merge-leaves-replica", "a merge leaves the right range's replica where it was", kinMerge},
		{LatchBeforeApplied, "latch-before-applied", "a latch is granted before what was proposed ahead of it is applied", kinSeveral},
		{LatchLetsThrough, "latch-lets-through", "writes go on in a range that is latched", kinSeveral},
		{LatchOutlived, "latch-outlived", "a revision is raised through a latch that has ended", kinSeveral},
		{RaiseBehindWrites, "raise-behind-writes", "what waited for a latch goes before the raise that ends it", kinSeveral},
	}
}
