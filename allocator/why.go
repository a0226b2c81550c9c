package allocator

// why is a reason for which something that should be done is not.
type why uint8

const (
	whyNot why = iota // there is no such reason
	whyMoves
	whyTargetsBusy
	whySourceBusy
	whyStrained
	whyNoNode
	whyRuledOut
	whyQuorumLost
	whyUnsafe
	whySuspect
	whyBehind
	whyManyFail
	whyZoneFails
	whyNoLeader
	whySlowMany
	whySlowYet
	whyWantedAway
	whyWantedRules
	whyUnmet
	whyHot
	whyNoRoom
	whyDoubt
	// Of one node only.
	whyHolds
	whyUnknown
	whyInactive
	whyCordoned
	whyDraining
	whySlow
	whyFull
	whyNodeBusy
	whyNodeStrained
	whyInZone
	whyNoBetter
	whys
)

// turn says whether what is held back only waits for its turn.
func (w why) turn() bool { return w == whyMoves || w == whyTargetsBusy || w == whySourceBusy }

func (w why) String() string {
	return [whys]string{
		whyMoves:        "waiting because as many moves are under way as the policy allows at once",
		whyTargetsBusy:  "waiting because the nodes that would do take as many replicas as the policy allows at once",
		whySourceBusy:   "waiting because as many replicas leave the node as the policy allows at once",
		whyStrained:     "waiting because the nodes that would do are strained",
		whyNoNode:       "waiting because no node could take a replica",
		whyRuledOut:     "waiting because constraints rule out every node that could take a replica",
		whyQuorumLost:   "waiting because fewer than a quorum of its voters are there and have caught up: nothing can be changed before some are back",
		whyUnsafe:       "waiting because a step of the way would leave fewer than a quorum of caught-up voters",
		whySuspect:      "waiting because a node is suspect, and not yet for as long as the policy says",
		whyBehind:       "waiting because a voter has not caught up",
		whyManyFail:     "waiting because so many nodes fail together that it is taken for a fault of the network",
		whyZoneFails:    "waiting because a zone fails as a whole, and the others could not take its replicas without sharing a zone",
		whyNoLeader:     "waiting because no other voter could lead",
		whySlowMany:     "waiting because so many nodes are slow that it is not the nodes",
		whySlowYet:      "waiting because the node is slow, and not yet for as long as the policy says",
		whyWantedAway:   "waiting because a node that was asked for takes nothing",
		whyWantedRules:  "waiting because what was asked for would miss more constraints than now",
		whyUnmet:        "waiting because no node that could take a replica meets the constraint better",
		whyNoRoom:       "waiting because a disk is almost full, and the nodes that have room are nearer to the other voters",
		whyDoubt:        "waiting because a decision was given up, and it is not known yet what still comes of it",
		whyHot:          "waiting because it serves more than placing leaders evens out, and is to be cut in two",
		whyHolds:        "holds a replica already",
		whyUnknown:      "there is no record of it",
		whyInactive:     "is not active",
		whyCordoned:     "is cordoned",
		whyDraining:     "is draining",
		whySlow:         "is slow",
		whyFull:         "its disk is full, or would be",
		whyNodeBusy:     "takes part in as many moves as the policy allows at once",
		whyNodeStrained: "is strained",
		whyInZone:       "is in a zone that fails",
		whyNoBetter:     "would miss more constraints, or be nearer to the others",
	}[w]
}

// passes says whether the reason goes away by itself, so that it is better to wait than to take a worse place.
func (w why) passes() bool { return w == whyNodeBusy || w == whyNodeStrained }
