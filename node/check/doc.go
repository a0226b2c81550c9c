// Package check looks whether a live cluster is what it must be, while it is in use, and says what it saw.
//
//   - Tiling: the index's entries cover each keyspace exactly once, and so do the ranges' own descriptors.
//   - Index: what the index says of a range is what the range says of itself. The index follows, so a difference counts only if it
//     is still there at every later look; but it never runs ahead of a range, and no generation goes back.
//   - Replicas: all replicas of a range hold the same versions at one revision, which each has applied. Versions up to a revision
//     never change, but for a compaction, so a range need not be at rest (meta/apply, HashVersions).
//
// What could not be looked at is said too: a node that is down, a range without a majority.
package check
