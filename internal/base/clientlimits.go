package base

import "time"

// The bounds of what clients rest on beside reads and writes, each with its reason, as in limits.go: watches, leases, snapshots of their
// data, and what is kept of it.
const (
	// WatchPullBytes bounds a page of changes, in memory: as large as still fits between nodes, half of MaxFrameBytes.
	WatchPullBytes = MaxFrameBytes / 2
	// WatchRunPages is how many pages of changes one walk gathers, and WatchRuns of how many walks the rest is kept, as long as somebody
	// asks for it every WatchRunTime: 32 MiB, and twice as much for each walk under way. A watch that was a million revisions behind,
	// of keys in no order, then took a third of the time.
	WatchRunPages = 4
	WatchRuns     = 2
	WatchRunTime  = 5 * time.Second
	// WatchPollTime is how long a pull waits at a replica for something new: well below RequestTimeout, for its answer takes time too. A lost
	// answer, or a replica that does not know that it was removed, is noticed that late.
	WatchPollTime = 5 * time.Second
	// WatchPullsAtOnce bounds the pages that a node reads at once: each takes a core, and twice a run of memory.
	WatchPullsAtOnce = 2
	// WatchClosesAtOnce bounds the entries under way by which a node closes ranges: it is one of many that write there.
	WatchClosesAtOnce = 64
	// WatchProgressInterval is after how long without an event a watch that asked for it is told how far it is. etcd's default.
	WatchProgressInterval = 10 * time.Minute
	// WatchProgressLeast is the shortest that it can be set to, as with etcd.
	WatchProgressLeast = 100 * time.Millisecond
	// WatchResponseBytes is where a response to a watch is cut, behind a revision: a stream's watches take turns that often.
	WatchResponseBytes = 256 << 10
	// WatchStreamBytes bounds what waits to be sent to one stream, beside one response. A stream whose reader is slower waits until half
	// of it is sent, and goes on from memory or the engine: 160 ms of what one of ten connections gets of 5,000 watches at full rate.
	WatchStreamBytes = 2 << 20
	// WatchTailBytes bounds the events that a node remembers of one range that is watched there, WatchTailsBytes those of all: seconds
	// of a loaded range, so that who resumes, or was slow for a moment, is served without reading the engine.
	WatchTailBytes  = 4 << 20
	WatchTailsBytes = 128 << 20
	// WatchEventBytes is what one event costs in memory beside its bytes.
	WatchEventBytes = 160
	// WatchPulls bounds the pages of WatchPullBytes that a node asks for at once for watches that catch up. Pulls that wait for news
	// are not counted: there is one for each range that is followed from afar.
	WatchPulls = 16
	// WatchResolves bounds the questions where a range is, as long as watches wait for that: enough that one range that does
	// not answer holds up none of the others.
	WatchResolves = 8
	// WatchMailboxBytes bounds the events that wait for the hub: some seconds of writes at full load. What comes on top is read from the
	// engine. WatchMailboxAsks bounds what clients ask of it before they wait for their turn: some milliseconds of its time.
	WatchMailboxBytes = 32 << 20
	WatchMailboxAsks  = 4096
	// WatchSentBytes is how often the hub is told of what was sent: each telling is a message to it.
	WatchSentBytes = 64 << 10
	// WatchSendCost is about what a response to a stream of its own costs a node, measured with a hundred connections. For as long as a
	// step's events would cost that, sent one by one, the next waits: WatchPauseMost at most, which is what it may add to an event's way
	// on a node that sends all the time; and not at all below WatchPauseLeast, as timers are often a millisecond late. Of one
	// stream WatchPauseEvents count: if it has more, it catches up, which nobody else is to feel.
	WatchSendCost    = 12 * time.Microsecond
	WatchPauseLeast  = 500 * time.Microsecond
	WatchPauseMost   = 6 * time.Millisecond
	WatchPauseEvents = 32
	// WatchLeaderless is for how many election time-outs in a row there is no leader before the streams are ended that want one: etcd's.
	// WatchLeaderKeys bounds the watches of a stream whose ranges are looked at.
	WatchLeaderless = 3
	WatchLeaderKeys = 1024
	// StreamEndGrace is how long a server that stops lets its clients take the end of their streams: a few round trips.
	StreamEndGrace = time.Second
	// WatchMergeBytes bounds the events that a watch over several ranges holds back until all are as far, WatchMergePulls the pages that
	// it asks for at once as it catches up, each of which may come on top.
	WatchMergeBytes = 4 << 20
	WatchMergePulls = 4
	// WatchRetry is the pause before what failed is asked again; it doubles up to WatchRetryMost, less up to half of it by chance.
	WatchRetry     = 50 * time.Millisecond
	WatchRetryMost = 5 * time.Second
	// WatchLinger is how long a node goes on hearing of a range of its own that nobody watches any more: clients come back.
	WatchLinger = 30 * time.Second
	// WatchCloseDelay is how long events wait for a range that is quiet before it is closed: one that is written to moves on by itself.
	// WatchCloseInterval is how often it is closed at most, and WatchClosePerRange by how much more rarely for each range that is closed
	// with it: a node has at most a thousand entries a second written for its watches, each of some tens of bytes. While it does not
	// move here the pause doubles, up to WatchCloseMost: as a node that is cut off from a range is not to fill its log.
	WatchCloseDelay    = 10 * time.Millisecond
	WatchCloseInterval = 50 * time.Millisecond
	WatchClosePerRange = time.Millisecond
	WatchCloseMost     = 5 * time.Second
	// WatchStepEvents bounds the events that one step looks at in memory for watches that go on after their streams were full, and
	// WatchStepWatches how many of them go on: some milliseconds. WatchStepGroup is how many of one stream, at the same place, go on as one,
	// before it is the next stream's turn: enough that what they are sent is made for few, and not many more than fit.
	WatchStepEvents  = 100_000
	WatchStepWatches = 10_000
	WatchStepGroup   = 64

	// LeaseAdmitTries bounds how often a write is tried again because its lease was evicted from the range meanwhile: its home says that
	// the lease is gone as soon as the first of these evictions begins, so that a second try settles it nearly always.
	LeaseAdmitTries = 4
	// LeaseQuestionIDs bounds the leases of one question about keep-alives, and the items of one page of a list of leases or of a
	// lease's keys: some 100 KB, which the leader answers within milliseconds.
	LeaseQuestionIDs = 10_000
	// LeaseAwait is how long the leader of a range holds a question about leases that are ending: most end within milliseconds, and what
	// comes to a gateway while its question is held waits so long at most to be asked for.
	LeaseAwait = 250 * time.Millisecond
	// LeaseKeepAliveQueue bounds the keep-alives that wait on a node for the leader of one range: what 300,000 clients send within a
	// second, at a TTL of ten. Above it a client is told to try again, which it does within half a second.
	LeaseKeepAliveQueue = 100_000
	// LeaseStreamQueue bounds the keep-alives of one stream that were read and not asked for yet; above it the client's flow stops.
	LeaseStreamQueue = 1_000
	// LeaseIDTries bounds how often an id is drawn for a lease whose client gave none: of 2^63 one that is taken is drawn twice in a row
	// only by a broken source of random numbers.
	LeaseIDTries = 4
	// LeaseEnders bounds the leases that a node ends in several ranges at once: each waits for one commit after the other, so that these keep
	// the logs of as many ranges busy.
	LeaseEnders = 64
	// OrphanLeaseTTL is how many seconds a lock or a leadership lasts whose client gave no lease: etcd's, for nobody keeps it alive.
	OrphanLeaseTTL = 60
	// LeaseSpans bounds the spans that a lease's record names: beyond it two neighbours become one, which costs an eviction in each range
	// between them. LeaseEvictGroups is how many groups of leases a range remembers the latest eviction of: an admission that crosses
	// one of its group is made again, so that thousands of evictions a second hold up few.
	LeaseSpans       = 64
	LeaseEvictGroups = 256
	// LeaseMinTTL is etcd's: one and a half elections, in whole seconds. LeaseMaxTTL too; both are in seconds.
	LeaseMinTTL = 2
	LeaseMaxTTL = 9_000_000_000
	// LeaseRevokesAtOnce bounds the revokes of one range's expired leases that are under way: as many as fill a few passes of its log.
	// LeaseRevokeRetry is the pause after one that failed. LeaseRevokePatience is how long one may take of which nothing is heard, and
	// LeaseEndingPatience how long somebody else may take to end a revoke that he began: more than RequestTimeout, so that he is done or gone.
	LeaseRevokesAtOnce  = 1024
	LeaseRevokeRetry    = 500 * time.Millisecond
	LeaseRevokePatience = 15 * time.Second
	LeaseEndingPatience = 10 * time.Second

	// ArchivePageBytes is how much one request for versions of a snapshot of the clients' data looks at, and ArchiveBlockBytes bounds a
	// block of its file: a page and one maximal pair, far below a frame. ArchiveBytesPerSecond bounds what a node reads for snapshots,
	// all together, and ArchivePagesAtOnce how many pages it reads for others at once, as for hashing.
	ArchivePageBytes      = 1 << 20
	ArchiveBlockBytes     = 4 << 20
	ArchiveBytesPerSecond = 64 << 20
	ArchivePagesAtOnce    = 2
	// ArchiveLeases bounds the leases in one page: some tens of bytes each.
	ArchiveLeases = 10_000
	// ArchiveStall is how long whoever reads a snapshot may take none of it before it is ended: meanwhile it keeps disk space that would
	// be free.
	ArchiveStall = time.Minute

	// RetentionMin and RetentionMax bound how long automatic compaction keeps history: it is looked at ten times in that time, and more
	// than ten looks a second are of no use. RetentionRevisionInterval is the time between two looks if it is kept by revisions: etcd's.
	// RetentionAtOnce is how many ranges are compacted at once: each is an entry in a log, and none is urgent.
	RetentionMin              = time.Second
	RetentionMax              = 100 * 365 * 24 * time.Hour
	RetentionRevisionInterval = 5 * time.Minute
	RetentionAtOnce           = 4

	// QuotaInterval is the time between two looks at how large the store is: so much can be written above its quota.
	QuotaInterval = 250 * time.Millisecond
	// QuotaMin is the least quota of a store: an empty one that was in use has up to four logs of 8 MiB and a range's LogKeepBytes, some 50 MB
	// that no deletion gives back.
	QuotaMin = 64 << 20
)
