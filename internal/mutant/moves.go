package mutant

// moves are the mistakes of those who decide where replicas are, and of those who carry that out.
func moves() []Mutant {
	return []Mutant{
		{DecisionWithoutGeneration, "decision-without-generation", "a directive is followed whatever the range has become since it was decided", kinGeneration},
		{FollowForEver, "follow-for-ever", "a directive is followed without an end, whether its decider is still there or not", kinMoves},
		{WithdrawnGoesOn, "withdrawn-goes-on", "a directive that was withdrawn is followed as long as it would have been", kinMoves},
		{RemovalBelowQuorum, "removal-below-quorum", "a voter is removed though those that stay have no quorum that has caught up", kinMoves},
		{StepCarriedOutTwice, "step-carried-out-twice", "a step that is in the log twice changes Raft's configuration twice", kinGeneration},
		{ReservationIgnored, "reservation-ignored", "replicas are directed to nodes that have refused to take them", kinMoves},
	}
}
