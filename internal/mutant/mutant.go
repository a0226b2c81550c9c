// Package mutant plants known mistakes into the product, one at a time, to show that the fault harness finds each of
// them: a check that cannot fail is worth nothing.
//
// A plant is `if mutant.Is(mutant.X) { … }`, a few lines at the place where the right code stands. Without the build tag
// "mutants" Is is the constant false, and the compiler removes the plant with its condition. With the tag Select names
// the one mistake that the process makes from then on; until then it makes none.
package mutant

// ID is one planted mistake.
type ID uint8

// The mistakes. All says of each what it breaks.
const (
	None ID = iota // the product as it is

	// What must be on disk before it is spoken of.

	VoteBeforeSync
	AppendBeforeSync
	LeaderCountsUnsynced
	VoteUnsynced
	UnbornSpeaks

	// What must change as one.

	HardStateFirst
	HardStateLater
	AppliedOutsideBatch
	AppliedTwice
	SnapshotNotAtomic
	SnapshotOtherInstant
	SnapshotMissesKeys
	ApplyBehindSnapshot
	DestroyLeavesState

	// The log.

	ResurrectedSuffix
	RecentKeepsSuffix
	LostTruncatedState
	CommitGoesBack

	// Reads.

	ReadWithoutQuorum
	ReadBeforeApplied
	ReadJoinsRound
	StaleLeaderServes
	LateAnswerCounts

	// Leases.

	LeaseFromReceipt
	LeaseRemembered
	LeaseOfOldToken
	LeaseBehindCommit
	GateStaysOpen
	TransferKeepsLease
	VotesWhileFortified
	WithdrawnEarly
	SilenceIgnored
	ReleaseNotSent
	LeaderNeverDropped
	StalledDiskAsks
	ColdForgetsPromise
	LeaderWithoutSupportStays

	// Membership.

	TombstoneIgnored
	ReplicaIDReused
	LearnerPromotedEarly
	JointNeverLeft
	JointForgotten
	ConfChangeAtAppend
	ConfChangeSkipped
	UnlistedCampaigns
	GenerationSkipped
	PublishOlder
	EpochNotRaised

	// Outcomes.

	AmbiguousAsFailed
	BlindRetry
	LostLeaderRefuses

	// The state machine.

	CompareAtPropose
	NodeDecides
	UnreplicatedState
	RevisionNotRestored
	DeletedKeepsVersion
	DeleteRangeMissesLast
	CompactionTakesNewest
	CompactionRevives

	// Splits.

	SplitNotAtomic
	SplitForgetsVote
	SplitRaisesDead
	SplitForgetsRevision
	DestroyOldSpan
	ExciseNewSpan
	SnapshotOverNeighbour

	// Merges.

	MergeAnyGeneration
	MergeForgetsRevision
	FrozenTakesWrites
	FrozenServesReads
	MergeUnconfirmed
	ConfirmUnsynced
	ThawAnyway
	AbsorbedAtOnce
	MergeLeavesReplica

	// Reads over several ranges.

	LatchBeforeApplied
	LatchLetsThrough
	LatchOutlived
	RaiseBehindWrites

	// Replicas that are moved.

	DecisionWithoutGeneration
	FollowForEver
	WithdrawnGoesOn
	RemovalBelowQuorum
	StepCarriedOutTwice
	ReservationIgnored

	// Leases of clients.

	LeaseExpiresAtElection
	LeaseExpiresInPause
	LeaseAdmitIgnoresTicket
	LeaseIndexForgets
	LeaseSplitForgetsGuest
	// Watches.

	WatchGapAtSplit
	WatchDoubleAtResume
	WatchEarlyProgress
	WatchLostAtCompaction

	count
)

// Mutant describes one planted mistake for people.
type Mutant struct {
	ID     ID
	Name   string // as it is given to Select
	Breaks string // what the product does wrong with it
	Kin    string // the mistake of others that it is one of
}

// Names lists the names of all in order.
func Names() []string {
	var names []string
	for _, m := range All() {
		names = append(names, m.Name)
	}
	return names
}

// Named finds a mistake by its name.
func Named(name string) (Mutant, bool) {
	for _, m := range All() {
		if m.Name == name {
			return m, true
		}
	}
	return Mutant{}, false
}
