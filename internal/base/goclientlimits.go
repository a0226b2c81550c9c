package base

import "time"

// The bounds of the Go client.
const (
	// ClientNodes bounds the nodes that a client remembers, and has connections to, at once: above every cluster that is.
	ClientNodes = 10_000
	// ClientFallbacks bounds the nodes, beside a range's own and the endpoints, that a request of a client is sent to when none of
	// those can be reached: each costs a connection.
	ClientFallbacks = 8
	// ClientReadTry is how long the client's first try of a read waits for an answer, before it asks elsewhere: several times
	// a failover. Each further try waits twice as long, ClientReadDoublings times, so that a long read comes to its end.
	ClientReadTry       = time.Second
	ClientReadDoublings = 12
	// ClientWatchBytes bounds what waits in the client for the caller of one watch, beside one response; ClientUpdateBytes is what an update
	// or an event costs in memory beside its bytes. Some thousand events: a caller that is slow for a moment goes on without a word
	// to the node.
	ClientWatchBytes  = 1 << 20
	ClientUpdateBytes = 128
	// ClientSessionTTL is how long a session lasts that nobody keeps alive, if its owner does not say; etcd's default. It ends for its owner
	// by one part in ClientLeaseMargin sooner: for clocks that do not run alike, and for what is begun just before.
	ClientSessionTTL  = 60 * time.Second
	ClientLeaseMargin = 10
	// ClientMaxAnswerBytes bounds one answer that the client takes; larger ones are for a Scan.
	ClientMaxAnswerBytes = 256 << 20
)
