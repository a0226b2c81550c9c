package base

// The gRPC metadata that Cairn's nodes and its own client speak beside etcd's messages.
const (
	// KeyspaceHeader is how a request says which keyspace it is for. Any client of etcd's may.
	KeyspaceHeader = "cairn-keyspace"
	// RouteHeader is how Cairn's own client says what range it thinks the request's first key is in: RANGE.GENERATION, both
	// decimal, 0.0 for none. Who sends it is told what is newer (RouteTrailer), and how a failure ended (clusterpb.Failure).
	RouteHeader = "cairn-route"
	// RouteTrailer carries a clusterpb.Route.
	RouteTrailer = "cairn-route-bin"
)
