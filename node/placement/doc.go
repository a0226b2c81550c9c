// Package placement is a node's part in placing replicas (docs/rfc/0004-placement.md).
//
// Every node answers deciders: it takes replicas or refuses them (admission.go), and tells how the ranges are that it leads
// (reports.go). A node that leads an index range, root or one of meta, decides for the ranges that this lists: it runs the stepped
// decider of meta/placement (runner.go), which it tells what the index says (index.go), what is known of the nodes, and what people
// asked for (stored.go), and carries out what that wants sent. Nothing here decides anything, and nothing is stored: a decider ends
// with the leadership of its index range, and the next one begins with what is stored.
package placement
