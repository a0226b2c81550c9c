package mutant

import "slices"

// The mistakes that others have made, of which the planted ones are some.
const (
	kinSync       = "an acknowledgement or a vote before the sync; HardState not in one batch with the entries (etcd #14370)"
	kinApplied    = "the applied index outside the batch of its effect (etcd #13766, #14685)"
	kinSuffix     = "a truncated log suffix that comes back after a restart (etcd #22442)"
	kinSnapshot   = "snapshot and compaction racing; restore with an unstable tail (etcd #7470, #20657)"
	kinReused     = "a replica removed and added again under one id (etcd-io/raft #349)"
	kinJoint      = "a joint configuration whose halves do not overlap (etcd-io/raft #372)"
	kinLearner    = "learners promoted before they have caught up; a joint configuration never left (etcd #12359, #7625)"
	kinLease      = "a read that trusts a leadership that may be over (etcd #6005, tikv #10011)"
	kinStuck      = "leases that end because somebody was stuck (etcd #15247)"
	kinFort       = "a fortification that outlives the leadership, or support that survives a restart of the supporter"
	kinStalled    = "a stalled disk that keeps leadership (hashicorp/raft #683; cockroach #41691)"
	kinLeader     = "a cached leader that is never dropped on a time-out (cockroach #80713)"
	kinBelow      = "a decision below raft that reads unreplicated state (etcd #14571)"
	kinUnlisted   = "a node that its own applied configuration does not list campaigns (nats #8489)"
	kinSplit      = "a split that is not atomic; a right side that votes before it exists (cockroach #20939, #7600)"
	kinNeighbour  = "a snapshot over a neighbour (cockroach #36611)"
	kinSeveral    = "reads of several ranges that belong to no one moment (YugabyteDB, CockroachDB: jepsen.io, long fork, causal reverse)"
	kinMerge      = "a merge that is not one decision: a snapshot over a merged neighbour, a range that is two (cockroach #36611)"
	kinAmbiguous  = "an ambiguous outcome reported as failed, or retried blindly"
	kinCompare    = "a compare-and-set evaluated on a stale read"
	kinGeneration = "a step carried out twice, or on another generation than the one it was planned for"
	kinMoves      = "a removal below a quorum of those that have caught up; a decision that outlives what it was made for"
	kinEpoch      = "a node that comes back after it was given up goes on as if nothing had been (cockroach: liveness epochs)"
	kinExpiry     = "a client's lease that ends early, or whose keys outlive it (etcd #15247)"
	kinWatch      = "a watch that misses, doubles or misplaces an event, or says that it is further than it is (etcd #15271, #18089, #19179, #20221)"
	kinVersions   = "versions removed that can still be read, or kept where they should not be"
)

// All lists the mistakes in the order of their ids.
func All() []Mutant {
	return append([]Mutant{
		{VoteBeforeSync, "vote-before-sync", "a vote is sent before it is on disk", kinSync},
		{AppendBeforeSync, "append-before-sync", "a follower acknowledges entries before they are on disk", kinSync},
		{LeaderCountsUnsynced, "leader-counts-unsynced", "a leader counts its own entries before they are on disk", kinSync},
		{VoteUnsynced, "vote-unsynced", "a new vote in a known term is written and not synced", kinSync},
		{UnbornSpeaks, "unborn-speaks", "a new replica answers before its id is on disk", kinSync},
		{HardStateFirst, "hard-state-first", "HardState is written in a batch of its own, before the entries that it commits", kinSync},
		{HardStateLater, "hard-state-later", "HardState is written in a batch of its own, after the entries, and not waited for", kinSync},
		{AppliedOutsideBatch, "applied-outside-batch", "the applied index is written with the batch after that of its effect", kinApplied},
		{AppliedTwice, "applied-twice", "the last entry that was applied before a restart is applied again", kinApplied},
		{SnapshotNotAtomic, "snapshot-not-atomic", "a snapshot's data and its raft state are taken in one after the other", kinSnapshot},
		{SnapshotOtherInstant, "snapshot-other-instant", "a snapshot names the index at which it was asked for, not that of its data", kinSnapshot},
		{SnapshotMissesKeys, "snapshot-misses-keys", "a snapshot ends before the last of a range's keys", kinSnapshot},
		{ApplyBehindSnapshot, "apply-behind-snapshot", "a snapshot is taken in while entries before it wait to be applied", kinSnapshot},
		{DestroyLeavesState, "destroy-leaves-state", "the data of a replica that was removed stays", kinReused},
		{ResurrectedSuffix, "resurrected-suffix", "entries behind those that overwrite a log stay in the store", kinSuffix},
		{RecentKeepsSuffix, "recent-keeps-suffix", "entries that were overwritten stay in memory", kinSuffix},
		{LostTruncatedState, "lost-truncated-state", "a log is truncated, and where it begins is not written", kinSnapshot},
		{CommitGoesBack, "commit-goes-back", "a replica starts with the commit index at which its log begins", kinApplied},
		{ReadWithoutQuorum, "read-without-quorum", "a leader answers reads without asking whether it still leads", kinLease},
		{ReadBeforeApplied, "read-before-applied", "a read is served before the replica has applied its index", kinLease},
		{ReadJoinsRound, "read-joins-round", "a read takes the answer to a question that was asked before it came", kinLease},
		{StaleLeaderServes, "stale-leader-serves", "reads that wait when a leadership ends are served from what is applied", kinLease},
		{LateAnswerCounts, "late-answer-counts", "an answer to a heartbeat of before a leader went cold counts for what it has asked since", kinLease},
		{LeaseFromReceipt, "lease-from-receipt", "support is timed from the receipt of the answer, not from the sending of the question", kinLease},
		{LeaseRemembered, "lease-remembered", "a read rests on a look at the lease that was made some time ago", kinLease},
		{LeaseOfOldToken, "lease-of-old-token", "a lease counts followers whose promise was under an earlier token", kinLease},
		{LeaseBehindCommit, "lease-behind-commit", "a read under a lease does not wait for what is committed and was shown by a follower", kinLease},
		{GateStaysOpen, "gate-stays-open", "readers are not told that a leadership has ended", kinLease},
		{TransferKeepsLease, "transfer-keeps-lease", "a leader that hands its leadership over keeps its lease meanwhile", kinLease},
		{VotesWhileFortified, "votes-while-fortified", "a follower votes against the leader that it promised its votes to", kinLease},
		{WithdrawnEarly, "withdrawn-early", "a node withdraws its support before the time that it promised is over", kinStuck},
		{SilenceIgnored, "silence-ignored", "a node that has started again votes at once, whatever it promised before", kinFort},
		{ReleaseNotSent, "release-not-sent", "a leader that steps down does not release its followers, nor answers when they ask", kinFort},
		{LeaderNeverDropped, "leader-never-dropped", "a promise to a leader outlives the support for its node", kinLeader},
		{StalledDiskAsks, "stalled-disk-asks", "a node whose disk is stuck goes on asking for support", kinStalled},
		{ColdForgetsPromise, "cold-forgets-promise", "a replica that goes cold forgets what it promised to its leader", kinFort},
		{LeaderWithoutSupportStays, "leader-without-support-stays", "a leader that no quorum supports any more does not step down", kinStalled},
		{TombstoneIgnored, "tombstone-ignored", "a late message brings a removed replica back to life", kinReused},
		{ReplicaIDReused, "replica-id-reused", "a replica that is added gets the id of the last one that was removed", kinReused},
		{LearnerPromotedEarly, "learner-promoted-early", "a learner becomes a voter before it has caught up", kinLearner},
		{JointNeverLeft, "joint-never-left", "a joint configuration is not left", kinLearner},
		{JointForgotten, "joint-forgotten", "a replica that starts in a joint configuration knows only the new half", kinJoint},
		{ConfChangeAtAppend, "conf-change-at-append", "a membership change takes effect where it is appended, committed or not", kinJoint},
		{ConfChangeSkipped, "conf-change-skipped", "one node applies membership changes to the descriptor and not to Raft", kinJoint},
		{UnlistedCampaigns, "unlisted-campaigns", "a replica that was removed goes on, and campaigns", kinUnlisted},
		{GenerationSkipped, "generation-skipped", "a membership change is made whatever generation it was planned for", kinGeneration},
		{PublishOlder, "publish-older", "an older descriptor replaces a newer one in the index", kinGeneration},
		{EpochNotRaised, "epoch-not-raised", "a node that is held to be failed, or has left, keeps its epoch: it never learns that it was fenced", kinEpoch},
		{AmbiguousAsFailed, "ambiguous-as-failed", "a write whose outcome is not known is reported as failed", kinAmbiguous},
		{BlindRetry, "blind-retry", "a write whose outcome is not known is made again", kinAmbiguous},
		{LostLeaderRefuses, "lost-leader-refuses", "a leader that loses its place refuses what is in its log already", kinAmbiguous},
		{CompareAtPropose, "compare-at-propose", "comparisons are evaluated where a transaction is proposed, not where it is applied", kinCompare},
		{NodeDecides, "node-decides", "a put counts twice on the node where somebody waits for it", kinBelow},
		{UnreplicatedState, "unreplicated-state", "what a put replaces is looked up in memory alone, which a restart empties", kinBelow},
		{RevisionNotRestored, "revision-not-restored", "the revision is counted from one again after a restart", kinApplied},
		{DeletedKeepsVersion, "deleted-keeps-version", "a key that is written after its deletion goes on with its old version", kinVersions},
		{DeleteRangeMissesLast, "delete-range-misses-last", "a deletion of a span stops after its first key", kinVersions},
		{CompactionTakesNewest, "compaction-takes-newest", "a compaction removes the newest version below it", kinVersions},
		{CompactionRevives, "compaction-revives", "a compaction removes a tombstone and leaves what it hides", kinVersions},
	}, slices.Concat(shapes(), moves(), leases(), watches())...)
}
