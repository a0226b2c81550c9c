package mutant

// watches are the mistakes of those who tell clients what was written.
func watches() []Mutant {
	return []Mutant{
		{WatchGapAtSplit, "watch-gap-at-split", "a watch goes on in a range that was cut off from where the rest is, not from where it was itself", kinWatch},
		{WatchDoubleAtResume, "watch-double-at-resume", "a watch whose reader was slow begins again with what it was sent last", kinWatch},
		{WatchEarlyProgress, "watch-early-progress", "a stream is told that it has everything up to where its ranges are, though some of its watches are behind", kinWatch},
		{WatchLostAtCompaction, "watch-lost-at-compaction", "a watch that lacks what was compacted goes on behind it", kinWatch},
	}
}
