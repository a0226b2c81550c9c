package base

import "time"

// Every bound of the program stands here, with its reason.
const (
	// MaxRequestBytes bounds one client request. etcd's default (--max-request-bytes).
	MaxRequestBytes = 1536 * 1024
	// RequestOverheadBytes is what gRPC's receive limit leaves above MaxRequestBytes, as etcd does.
	RequestOverheadBytes = 512 * 1024
	// MaxTxnOps bounds the operations of one transaction. etcd's default (--max-txn-ops).
	MaxTxnOps = 128
	// RequestTimeout bounds a request that came without a deadline. etcd's 5 s plus twice its election time.
	RequestTimeout = 7 * time.Second

	// TickInterval is a leader's heartbeat, and ElectionTicks how many of them make an election's time-out: etcd's
	// defaults, 100 ms and 1 s. Leases will replace both as the detector of failures.
	TickInterval  = 100 * time.Millisecond
	ElectionTicks = 10

	// SupportInterval is how often a node asks its peers for support, SupportDuration how long it asks for: three lost
	// messages in a row end it, and failover takes about that long. None of 9 minutes on two cores with a load average of 10
	// ended any by mistake with 100 and 300 ms. A node that leads nothing that is in use asks every SupportIdleInterval for
	// SupportIdleDuration: that is what keeps an idle cluster of three at 3 % of a core. SupportMaxDuration bounds every promise, and is how long a node that was started again
	// neither votes nor campaigns. A node whose disk has completed no sync for SupportDiskLimit asks for none.
	SupportInterval     = 80 * time.Millisecond
	SupportDuration     = 240 * time.Millisecond
	SupportIdleInterval = 400 * time.Millisecond
	SupportIdleDuration = 900 * time.Millisecond
	SupportMaxDuration  = time.Second
	SupportDiskLimit    = 400 * time.Millisecond
	// ColdAfter is how long nothing may happen to a replica before all but a row of it is dropped from memory: a range that is
	// used every few seconds is not built again each time.
	ColdAfter = 20 * time.Second
	// ReadRounds bounds the ReadIndex questions of one range under way: enough that a new read rarely waits for an
	// older question, few enough that a loaded leader answers many reads with each heartbeat.
	ReadRounds = 4

	// MaxMessageBytes bounds the entries in one MsgApp: above a maximal request, far below a frame.
	MaxMessageBytes = 1 << 20
	// MaxApplyBytes bounds the entries handed to one apply, so that one range cannot hold a pass for long.
	MaxApplyBytes = 4 << 20
	// MaxUncommittedBytes bounds what a leader has proposed and not committed; further proposals are throttled.
	MaxUncommittedBytes = 64 << 20
	// MaxInflightMessages and MaxInflightBytes bound the appends of one range on their way to one follower: half of
	// FrameQueueBytes, so that one range cannot fill its peer's queue alone.
	MaxInflightMessages = 256
	MaxInflightBytes    = 16 << 20

	// LogKeepEntries and LogKeepBytes: what is applied stays in the log up to this, so that a follower that was
	// away for a moment is served from the log and not by a snapshot. The entries are etcd's default
	// (SnapshotCatchUpEntries); the bytes are half a memtable, so that most entries die before they reach a table.
	LogKeepEntries = 5_000
	LogKeepBytes   = 8 << 20

	// LessorInterval is how often the leader of a range looks at the leases of clients that live there, and LessorLate how much later a look
	// may come and still count as time in which the node was there: several times what a loaded machine needs, below the shortest TTL.
	// LessorSoonest is how soon it looks again for the next lease that may have ended: of a million that are kept alive thousands come up
	// every second, and an expiry is late by so much at most. LessorLooks bounds the leases of one look, some milliseconds of work.
	LessorInterval = 250 * time.Millisecond
	LessorLate     = time.Second
	LessorSoonest  = 20 * time.Millisecond
	LessorLooks    = 10_000

	// RecentEntriesBytes bounds the applied entries that a range keeps in memory for followers a moment behind: some
	// hundred entries, a few passes at full load.
	RecentEntriesBytes = 128 << 10

	// HeadsPerRange is half of the keys of a range whose newest version is remembered without its value, about 120
	// bytes each: what is written again and again is not looked up in the engine.
	HeadsPerRange = 16 << 10

	// EntryCacheBytes bounds the cache of raft entries that were read for followers that were away: what one of them
	// is behind after a restart, and the next one is then too.
	EntryCacheBytes = 8 << 20
	// BlockCacheBytes bounds Pebble's block cache of a node.
	BlockCacheBytes = 32 << 20

	// CandidatesPerLoop bounds the elections that one loop's replicas have under way: enough to fill a batch for the disk and a
	// frame for the network, few enough that an answer is there before the candidate tries again.
	CandidatesPerLoop = 256

	// KeyspaceNameTTL is how long a node leads a client's name for a keyspace where it last led: what is dropped or made anew under
	// an old name is known everywhere after that long.
	KeyspaceNameTTL = 2 * time.Second

	// KeyspaceNames bounds the names that a node remembers.
	KeyspaceNames = 10_000

	// PageBytes bounds one page of a long read, in memory and between nodes: with one maximal pair above it, it is well below
	// MaxFrameBytes and a client's 4 MiB. What a page costs beside its pairs is then below a hundredth.
	PageBytes = 1 << 20

	// SpreadTries bounds how often a read over several ranges is begun again because the latch of one of them did not last: its
	// leader changed, or was slow.
	SpreadTries = 20
	// SpreadRanges bounds the ranges of one such read: as many requests are under way at once.
	SpreadRanges = 8192
	// LatchDuration is how long a latch holds a range if its reader is not heard again: many times what it takes to ask all
	// ranges of a span, and less than clients notice.
	LatchDuration = 500 * time.Millisecond
	// LatchesPerRange bounds the latches that hold one range, or wait to. Further ones are told to come again.
	LatchesPerRange = 256
	// LatchedProposals and LatchedBytes bound the proposals that wait for the latches of one range: those of a leader under full
	// load in the time that a latch lasts when nothing goes wrong, some milliseconds.
	LatchedProposals = 4096
	LatchedBytes     = 8 << 20

	// SplitBytes is how large a range's data may be on disk before the range is cut in two: small enough to be sent to another node
	// within seconds, large enough that a node has thousands of ranges and not millions.
	SplitBytes = 64 << 20

	// TakenOver bounds the ranges of which a node remembers that another has taken them over, to tell those who still ask for them.
	TakenOver = 10_000

	// MergeConfirmTime is how long the nodes of two ranges that are to be merged may take to confirm that they have all of the right
	// one, which takes no writes meanwhile: a few syncs, and an election. Then the merge is given up.
	MergeConfirmTime = 2 * time.Second

	// AlignTime is how long a range's replicas are wanted beside another's once somebody has asked for it: whoever waits for that looks, and
	// asks again, every AlignPoll, so that it outlasts an election of the range, and the merge that follows. Nobody else moves the range's
	// replicas meanwhile: what a client wanted that is gone must not hold up a repair.
	AlignTime = 5 * time.Second
	AlignPoll = 250 * time.Millisecond

	// MergePatience is how long a range may be frozen before its own leader finds out what has become of the merge, and ends it: as
	// long as whoever began it may take, and then some.
	MergePatience = 5 * time.Second

	// MergeFraction is how small two neighbours must be, together, to be merged: a third of the size at which a range is cut, so
	// that what was merged is not cut again for long. MergeCalm is in how many looks in a row at the sizes neither may have been
	// written to, and MergeQuiet how many requests a second the one that this node leads may get: a merge stops both for a moment.
	MergeFraction = 3
	MergeCalm     = 2
	MergeQuiet    = 10

	// SizeInterval is how often a node looks at the sizes of the ranges that were written to.
	SizeInterval = 5 * time.Second

	// ReportShare is by how much a range's size or rate must change before its leader's node tells those who place replicas, and
	// ReportBytes and ReportRate the least changes that count: what is smaller balances nothing.
	ReportShare = 0.1
	ReportBytes = 1 << 20
	ReportRate  = 1.0
	// ReportPage bounds the ranges of one answer, some 40 bytes and one look at the range's size each: tens of milliseconds.
	// ReportEnded bounds the ranges that a node remembers to have led, so that it need not tell of all others again.
	ReportPage  = 2000
	ReportEnded = 10_000

	// DecideAsks bounds the questions that one decider has under way at once, and DecideAskTimeout how long each waits: longer than an
	// election, and a node that does not answer holds up one of them that long.
	DecideAsks       = 64
	DecideAskTimeout = 2 * time.Second
	// IndexNews bounds the changes of an index that wait for its decider: with more of them it reads all of it again.
	IndexNews = 10_000

	// SplitQPS is the rate of requests above which a range is cut in two: a quarter of the puts of one range that two cores were
	// measured at (docs/performance.md). A range with less gains nothing by a second log.
	SplitQPS = 2500

	// LoadHalfLife is after how long a request counts half in its range's rate: a second of thrice a rate moves it by a quarter.
	LoadHalfLife = 5 * time.Second
	// LoadRises is after how long the rate that a new leader counts is about what its range is served: all but a sixteenth.
	LoadRises = 4 * LoadHalfLife
	// LoadInterval is how often a node looks at the rates of the ranges that are in use.
	LoadInterval = time.Second
	// LoadIdle is the rate, in requests per second, below which a range is not in use and no longer measured: a single request is
	// forgotten after four half-lives, which is when its replica goes cold.
	LoadIdle = 0.01
	// LoadSettle is how long a range is measured before it can be found hot, from its last split or change of leader on, and
	// LoadWindow how long it must then be hot without a pause: a peak of seconds cuts nothing, and halves are not cut again
	// before they were seen to be hot themselves.
	LoadSettle = 5 * time.Second
	LoadWindow = 5 * time.Second
	// LoadTouchesPerSecond bounds the requests of a hot range whose keys are looked at: some microseconds of work each second.
	LoadTouchesPerSecond = 100
	// LoadTouches is how many of them a decision needs at least; half of them must have come after the key that is chosen. Then a
	// share of a half is known within 0.07 (one standard deviation of 50).
	LoadTouches = 100
	// LoadCandidates is how many keys are tried as the place of a cut: the best of 32 random ones lies within 3 % of the middle.
	LoadCandidates = 32
	// LoadKeyBytes bounds what is kept of a key: a cut may lie between two keys. With LoadCandidates it is 16 KiB for a range.
	LoadKeyBytes = 512
	// LoadShare is how much of a range's load its busier half may keep: a cut that takes less than a quarter away is not worth a
	// range.
	LoadShare = 0.75
	// LoadAcrossWeight is what a read counts in each half that it touches both of: such a read looks at each range twice.
	LoadAcrossWeight = 2

	// EarlyVotes bounds the candidates' questions that one loop keeps of ranges that it does not have yet: one for each range that
	// was cut off another within the last second.
	EarlyVotes = 1024

	// MailboxBytes bounds the messages and proposals that wait for one loop: beyond it messages are dropped and
	// proposals refused. Eight times what a loop takes in a pass at full load.
	MailboxBytes = 64 << 20
	// MailboxReads bounds the linearizable reads that wait for one loop; beyond it they are refused.
	MailboxReads = 100_000

	// ExpireInterval is how often waiting requests are looked through for passed deadlines; a request that its own
	// caller no longer waits for is kept at most this much too long.
	ExpireInterval = 500 * time.Millisecond

	// ThrottleRetry is the wait that a refused request is told: a few passes of a loaded loop.
	ThrottleRetry = 10 * time.Millisecond
	// RetryMin and RetryMax bound the wait before a request that was not carried out is tried again, when nothing
	// that could be awaited says more: below an election, so that its end is not missed for long.
	RetryMin = 20 * time.Millisecond
	RetryMax = 500 * time.Millisecond
	// RetryHints bounds how often a request follows hints from node to node without a pause.
	RetryHints = 5

	// ReconcileInterval is how often a node looks after the ranges that it leads without being woken: followers that
	// have caught up do not say so.
	ReconcileInterval = 250 * time.Millisecond
	// StepInterval is how often it looks at a range with which it took a step less than StepSoon ago: a small replica has caught up
	// in some milliseconds, and a new cluster has its replicas within a second.
	StepInterval = 25 * time.Millisecond
	StepSoon     = time.Second
	// LaggingInterval is how often, and LaggingLooks at how many at once, it looks at those of which a replica was behind: whoever
	// decides for them learns within seconds that it is not any more, and ten thousand whose node is away cost a hundred looks a second.
	LaggingInterval = 2 * time.Second
	LaggingLooks    = 200
	// OrphanAfter is how long a replica hears of no leader before its node asks the index whether it is still a member: ten
	// elections' time, so that it is not asked during one.
	OrphanAfter = 10 * time.Second
	// NodesInterval is how often a node without a replica of sys reads the nodes' records.
	NodesInterval = 5 * time.Second
	// StopTimeout bounds a graceful stop; what is still under way then is cut off, safely.
	StopTimeout = 10 * time.Second
	// HandOverPoll is how often a stopping node looks whether it still leads: a transfer is two messages and a sync.
	HandOverPoll = 20 * time.Millisecond
	// DescriptorCache bounds the descriptors that a node caches, about 200 bytes each.
	DescriptorCache = 100_000

	// ReconnectMin and ReconnectMax bound the pause before a broken stream to a node is opened again: below an
	// election at first, and cheap when the node is away for long.
	ReconnectMin = 50 * time.Millisecond
	ReconnectMax = 2 * time.Second
	// ConnectTimeout bounds one attempt: a lost SYN is sent again after 1 s.
	ConnectTimeout = 3 * time.Second
	// PeerKeepAlive and PeerKeepAliveTimeout find connections whose other end is gone without a word. gRPC allows no
	// pings more often than every 10 s.
	PeerKeepAlive        = 10 * time.Second
	PeerKeepAliveTimeout = 3 * time.Second

	// CompactionStep is how many versions one step of the removal behind a compaction looks at: a batch of at most as
	// many deletions, written in about a millisecond.
	CompactionStep = 1000
	// CompactionVersionsPerSecond bounds that removal on a node, so that it takes a few per cent of a core.
	CompactionVersionsPerSecond = 200_000

	// OwnHistory is how long old versions of what Cairn keeps about itself (root, meta, sys) stay: nothing watches them, and the longest
	// reader, who goes through the index page by page at one revision, takes minutes with a million ranges. It is more, for each
	// removal walks through a range once.
	OwnHistory = time.Hour

	// ServerBufferBytes is the read and the write buffer of a connection. In BenchmarkPut of node/serve, with 256 clients
	// on 8 connections and two cores, 128 KiB gained 4 % over gRPC's 32 KiB; this is the middle, for it costs memory.
	ServerBufferBytes = 64 << 10
	// ServerWindowBytes lets a snapshot chunk or a large range travel without waiting for a window update.
	ServerWindowBytes = 1 << 20
	// ServerStreams bounds what one connection may have under way; etcd leaves it open.
	ServerStreams = 1 << 14
	// ClientKeepAliveMin is how often a client may ping; etcd's default (--grpc-keepalive-min-time).
	ClientKeepAliveMin = 5 * time.Second
	// ClientKeepAliveEvery and ClientKeepAliveWait find connections whose other end is gone; etcd's defaults.
	ClientKeepAliveEvery = 2 * time.Hour
	ClientKeepAliveWait  = 20 * time.Second

	// FirstBytesTimeout is how long a connection may say nothing: a client speaks at once, and a lost packet is sent again within
	// seconds. UndecidedConnections is how many may do so at a time, of some KiB each; further ones are closed.
	FirstBytesTimeout    = 10 * time.Second
	UndecidedConnections = 1 << 14
	// AcceptPauseMin and AcceptPauseMax are between two tries to accept when there are too many open files; as in net/http.
	AcceptPauseMin = 5 * time.Millisecond
	AcceptPauseMax = time.Second
	// HTTPHeaderTimeout and HTTPHeaderBytes bound the header of an HTTP request, HTTPIdleTimeout a connection between two of them:
	// longer than a scrape or a probe is apart from the next.
	HTTPHeaderTimeout = 10 * time.Second
	HTTPHeaderBytes   = 64 << 10
	HTTPIdleTimeout   = 3 * time.Minute
	// ScrapesInFlight bounds the scrapes of metrics at a time: two servers of Prometheus, and somebody who looks.
	ScrapesInFlight = 4
	// GatewayPipeBytes is what lies between the JSON gateway and the gRPC server of the same process: a window's worth.
	GatewayPipeBytes = 256 << 10

	// MaxFrameBytes bounds one frame between nodes: a pass of a loop cuts its messages into frames below it.
	MaxFrameBytes = 8 << 20
	// FrameQueueBytes bounds what waits for one peer in one class; what does not fit is dropped (raft) or
	// refused (control).
	FrameQueueBytes = 32 << 20
	// FrameQueueLen bounds the number of frames that wait for one peer in one class.
	FrameQueueLen = 4096

	// SnapshotChunkBytes is one chunk of a snapshot; SnapshotCreditBytes what a receiver lets be under way.
	SnapshotChunkBytes  = 256 << 10
	SnapshotCreditBytes = 4 << 20
	// SnapshotBytesPerSecond is the rate at which a node sends snapshots, all together.
	SnapshotBytesPerSecond = 64 << 20
	// SnapshotBurstBytes is how much may be read or sent at once of what has been saved up: a core's work of a few milliseconds, which
	// whoever writes meanwhile waits for.
	SnapshotBurstBytes = 1 << 20
	// SnapshotScratchBytes is how much of a snapshot that is sent lies in the memory of the system, as files that are gone before they
	// would be written: all of a range that is as large as ranges become. What is beyond it goes to the disk bit by bit.
	SnapshotScratchBytes = 2 * SplitBytes
	// SnapshotTableBytes is the size at which a snapshot's next table file begins: small enough that a file is
	// checked and resumed cheaply, large enough that a gigabyte is a few dozen files.
	SnapshotTableBytes = 32 << 20
	// StagedWriteOut is how much of a snapshot's file is written before the disk is given it: as Pebble's own tables are.
	StagedWriteOut = 512 << 10
	// SnapshotMaxFiles bounds the files of one snapshot: 320 GiB of tables.
	SnapshotMaxFiles = 10_000
	// SnapshotAttempts bounds the streams over which one snapshot is sent; then Raft asks for a new one.
	SnapshotAttempts = 8
	// SnapshotRetryMin is the wait before a broken snapshot stream is opened again; it doubles each time.
	SnapshotRetryMin = 100 * time.Millisecond
	// SnapshotsInFlight bounds the snapshots that a node sends, and those that it receives, at once.
	SnapshotsInFlight = 2

	// JoinAddresses bounds the addresses of --join: they are all asked in every round.
	JoinAddresses = 64
	// JoinProbeTimeout bounds one question to another node while joining: a lost SYN is sent again after 1 s and
	// after 3 s more, and a node that takes longer than that to say who it is cannot be worked with.
	JoinProbeTimeout = 5 * time.Second
	// JoinRest is how long a member that starts waits for the other addresses once one of its cluster has answered: what answers at all
	// does so in some round trips, and one address that leads nowhere does not hold it up.
	JoinRest = 250 * time.Millisecond
	// JoinCallTimeout bounds one Join or Announce: the member probes the address, and commits to sys.
	JoinCallTimeout = JoinProbeTimeout + RequestTimeout
	// JoinRetryMin and JoinRetryMax bound the wait between two rounds of the join list: a cluster that starts all
	// at once comes up quickly, and one that waits for its operator costs nothing.
	JoinRetryMin = 100 * time.Millisecond
	JoinRetryMax = 2 * time.Second
	// AnnounceTries bounds the other nodes that one round of announcing asks, before the node itself tries; which
	// ones is drawn anew each time, so that many dead addresses do not hold up the start.
	AnnounceTries = 8
	// FenceWait is how long a client's request waits for a node that may not serve yet: a node that was started serves after some tens of
	// milliseconds, and where the leader of sys went with it, after an election.
	FenceWait = time.Second
	// RegistrarTries bounds how often a member tries a change of the node records again after it lost a race.
	RegistrarTries = 16

	// LookupTimeout bounds one look-up of a name of --join, which the addresses that were given wait for: a question that was lost is
	// asked again in the next round.
	LookupTimeout = 3 * time.Second

	// GossipInterval is how often a node compares what it knows with GossipFanout others: an idle cluster of three sends two small
	// frames a second for it, beside some thirty of support. GossipHurry is the pause between two when somebody is new or has moved.
	GossipInterval = 3 * time.Second
	GossipHurry    = 100 * time.Millisecond
	GossipFanout   = 2
	// GossipLoadInterval is how often a node says how busy it is, if that is another than it said: heartbeats say it every second
	// to those who decide.
	GossipLoadInterval = 10 * time.Second
	// GossipSilence is how long a node hears no gossip before it looks at its --join again: five times what it takes.
	GossipSilence = 15 * time.Second
	// GossipFrameBytes bounds the entries in one frame, half a millisecond of a gigabit: support waits behind it. GossipEntryBytes
	// bounds one entry, some hundred bytes as a rule; GossipDigest the versions in one frame, about 15 bytes each.
	GossipFrameBytes = 64 << 10
	GossipEntryBytes = 32 << 10
	GossipDigest     = 2000
	// GossipNodes bounds the nodes that one knows: above every cluster that is.
	GossipNodes = 10_000
	// GossipInbox bounds the frames that wait to be taken; beyond it they are dropped, and a later sum shows what was missed.
	GossipInbox = 64

	// StatusTimeout bounds what one node may take to say how it is; StatusFanout how many are asked at once.
	StatusTimeout = 2 * time.Second
	StatusFanout  = 32

	// ChecksumPageBytes is how much one request to hash a replica's data reads: a fraction of a second's work, and so far below
	// RequestTimeout. ChecksumBytesPerSecond bounds what a node reads for it, all together: half of what it may send of snapshots, for
	// it is never urgent; ChecksumsAtOnce how many it reads at once.
	ChecksumPageBytes      = 4 << 20
	ChecksumBytesPerSecond = 32 << 20
	ChecksumsAtOnce        = 2

	// CheckRanges is how many ranges a check compares at once: each of their nodes is asked for as many pages.
	CheckRanges = 4
	// CheckAsks bounds the questions that a check has under way while it looks at the ranges' descriptors.
	CheckAsks = 16
	// CheckIndexPage bounds the entries of the index that are read at once, some hundred bytes each.
	CheckIndexPage = 1000
	// CheckLooks is how often a difference is looked at before it is called wrong, and CheckLookPause the time between: the index
	// follows a range within moments, and within seconds if the range's leader fails meanwhile.
	CheckLooks     = 6
	CheckLookPause = time.Second
	// CheckProbeTimeout bounds one question of how a range is: more than an election.
	CheckProbeTimeout = 3 * time.Second
	// CheckTries bounds how often a question of a check is asked again, and how often a range is begun again that was compacted,
	// split or moved while it was compared.
	CheckTries = 8

	// The bounds of a simulated allocation: what a mistyped scenario may cost. SimNodes and SimRanges are ten times the largest
	// cluster that the allocator is measured at; SimSteps is a month in steps of a second; SimStatements is a long scenario.
	SimNodes      = 10_000
	SimRanges     = 10_000_000
	SimSteps      = 30 * 24 * 3600
	SimStatements = 10_000
	// SimSamples bounds what is kept of how a simulated cluster was, and is drawn; samples are taken less often in a long run.
	SimSamples = 720
	// SimAfter ends a simulated run that does not come to rest so long after its last event. A run is at rest when no planner has
	// wanted anything for SimQuiet.
	SimAfter = 4 * time.Hour
	SimQuiet = time.Minute

	// MaxReplicas bounds the replicas of one range: five voters, and room for learners that come in.
	MaxReplicas = 9
	// CaughtUpEntries is how far a learner may lie behind the leader's log and still be made a voter: a fraction of
	// a second of writes at full load, so that a commit which comes to need it does not wait for longer.
	CaughtUpEntries = 1000
	// What one pass of the planner may cost (allocator), that it ends within 50 ms at a million ranges, and so that who decides can
	// answer meanwhile. PlanVisits bounds the places that it compares for ranges of which nothing comes, some 20 ns each. PlanSorts
	// bounds the ranges that it looks at because they, or their nodes, have changed, some 300 ns each, which count among those visits:
	// a zone of 100 nodes that fails, with 300,000 replicas, is known after six passes.
	PlanVisits = 1_000_000
	PlanSorts  = 50_000
	// What a range's decider sends, and how long it waits (meta/placement).
	//
	// DecideInterval is how often it plans: a pass after a change costs below 50 ms at a million ranges. DecideGrace is how long a
	// new one only listens: two rounds of reports, so that it knows who leads what before it moves the first range.
	// DecideSoon is how soon it may plan again if a decision has ended, or a node come.
	DecideInterval = time.Second
	DecideSoon     = 250 * time.Millisecond
	DecideGrace    = 5 * time.Second
	// ReportInterval is how often it asks a node how the ranges are that that one leads; what has not changed is not sent again.
	// ReportSoon is how soon it asks a node that is to lead one of them, and then less and less often until that leads it: a transfer
	// takes a few round trips.
	ReportInterval = 2 * time.Second
	ReportSoon     = 100 * time.Millisecond
	// DirectTimeout is how long a directive holds if it is not renewed: what a dead decider wanted ends that soon, and an election
	// of the range's leader fits in. DirectRenew leaves three tries in it.
	DirectTimeout = 5 * time.Second
	DirectRenew   = 1500 * time.Millisecond
	// ReserveTimeout and ReserveRenew are the same for a reservation, which costs its node a slot as long as it is not ended.
	ReserveTimeout = 10 * time.Second
	ReserveRenew   = 3 * time.Second
	// DecideRetry is how long it waits before it asks a node again that refused a reservation, or a range whose leader did not answer.
	DecideRetry = time.Second
	// ReservePatience is how long a decision waits for its reservations: then another place is looked for.
	ReservePatience = 15 * time.Second
	// DecidePatience is how long a decision may go on without a step or a byte of progress: a snapshot of SplitBytes takes a second
	// at SnapshotBytesPerSecond, and waits for its turn at most about as long as this.
	DecidePatience = 2 * time.Minute
	// DecidePause is how long a range is left alone after a decision for it was given up: what stood against it stands for a while.
	DecidePause = 10 * time.Second
	// A node takes part in no further move while its writes take more than StrainedPutPermille of what is normal, which is what a
	// move may cost them at most; below StrainedPutLeast nobody minds. StrainedSync is a sync that holds up every write behind it.
	StrainedPutPermille = 2000
	StrainedPutLeast    = 20 * time.Millisecond
	StrainedSync        = 250 * time.Millisecond
	// ReserveSmallBytes is how little a replica holds of which ReserveSmallShare take the place of one: sent in some milliseconds.
	ReserveSmallBytes = 1 << 20
	ReserveSmallShare = 4
	// HeldAfter is how long what should be done may wait before the log says so: longer than most wait for their turn.
	HeldAfter = 30 * time.Second
	// ReserveDiskPermille is how full a node's disk may become by what it takes in.
	ReserveDiskPermille = 900
	// ReservationsPerNode bounds those that a node remembers, whoever asks: many times what it grants.
	ReservationsPerNode = 1024

	// CachedDescriptors bounds the descriptors that a node remembers for addressing: a few hundred bytes each.
	CachedDescriptors = 20_000
	// LookupQuestions bounds the questions of one lookup: three hops, and as many again that a stale descriptor cost.
	LookupQuestions = 6
	// DoubtAfter is how long a node is told by those that its cache names for a range that none of them leads it, before it asks the
	// index whether the range is elsewhere, and then how often, and how long it waits for the answer: longer than an election takes,
	// so that an ordinary one costs the index nothing, and well below the time of a request.
	DoubtAfter = 2 * time.Second
	// RetryTries bounds how often one request is tried, if its deadline never ends it: a wait may be cut short by any
	// news of a leader, so that this must leave room for many.
	RetryTries = 1000

	// MaxVoters bounds the voters of one range: of five two may fail at once, and each further one costs every write a message.
	MaxVoters = 5
	// OperationLook is how often whoever carries operations on looks how far they are, if nothing wakes it before: people watch them.
	// One that reads the whole index is looked at no more often than OperationScanShare times what the last reading took, so that
	// reading a million descriptors takes at most that share of a leader's time; and of what it took no more than OperationScanRange a
	// range counts: a reading that waited for a range without a leader has cost nothing, and what it found is old.
	OperationLook      = time.Second
	OperationScanShare = 20
	OperationScanRange = 5 * time.Microsecond
	// OperationStalled is after how long without progress an operation says why it waits: more than a step of a small range takes.
	OperationStalled = 3 * time.Second
	// OperationEstimateEvery is how often an operation's record is written for a new estimate alone: each writing is one of `sys`.
	OperationEstimateEvery = 5 * time.Second
	// OperationSettle is how long after a node was marked what was decided before may still reach it: a directive that is not renewed
	// is forgotten after a few seconds, and the index is a moment behind.
	OperationSettle = 10 * time.Second
	// OperationSome bounds the ranges that an operation names as being left, and that it asks the deciders about: some examples.
	OperationSome = 3
	// OperationsKept bounds the operations that have ended whose records are kept, to be looked at: some months of a cluster's life.
	OperationsKept = 200
	// OperationNodes bounds the nodes of one operation: their records change with it in one transaction (MaxTxnOps), with some room.
	OperationNodes = 100
	// HoldMost bounds how long nodes may be held to be about to stop: what they hold is not replaced meanwhile, if they stay away.
	HoldMost = 24 * time.Hour
	// OperationTries bounds how often a change of operations is tried again after it lost a race for one of its records.
	OperationTries = 16

	// PolicyPauseLatencyPermille is how slow writes may become, of what is normal, before moves wait: what operators are promised.
	PolicyPauseLatencyPermille = 2000
	// HeartbeatInterval is how often a node tells the leader of `sys` how it is. HeartbeatWindow is how long what speaks against a
	// node must last before it is suspect, and how old a heartbeat may be: three may be lost, and a process that paused for a second,
	// or was started again, moves nothing.
	HeartbeatInterval = time.Second
	HeartbeatWindow   = 4 * time.Second
	// HeartbeatTimeout bounds one heartbeat with all its tries: the next one is due by then, and says more. One that is answered too
	// late has been heard all the same.
	HeartbeatTimeout = time.Second
	// HeartbeatNodes is how many nodes there may be for each answer to a heartbeat to tell of all of them: some hundred bytes each. In
	// a larger cluster each node is told every other time, or more rarely, so that the leader of `sys` sends a few megabytes a second.
	HeartbeatNodes = 64
	// LoadSizesInterval is how often a node measures what it holds and how full its disk is.
	LoadSizesInterval = 10 * time.Second
	// NormalHalfLife is how slowly what a write normally takes follows what it takes: many times as long as a move.
	NormalHalfLife = 10 * time.Minute
	// NormalCalm is after how long without anything as slow what was slow before is normal no more.
	NormalCalm = time.Minute
	// HealthStep is how often the leader of `sys` looks at what the heartbeats say: a quarter of their interval.
	HealthStep = 250 * time.Millisecond
	// HealthAge is how old a node's last answer may be for the node to say that the leader of `sys` told it.
	HealthAge = 5 * time.Second
	// FailedAfter is how long a node is suspect before it is held to be failed, and its replicas are replaced: longer than the restart
	// of a machine. FailedAfterOwn is the same for Cairn's own ranges, of which everything else depends and which are small.
	FailedAfter    = 5 * time.Minute
	FailedAfterOwn = 30 * time.Second
	// SlowFactor is how many times the median of the other nodes a node's syncs, writes or timers must take for it to be slow, and
	// SlowSync, SlowPut and SlowLate what they must take in any case: below that nobody would notice. SlowAfter is how long that must
	// last, more than the ten seconds that one bad moment counts in; it ends after SlowClear below half of both.
	SlowFactor = 8
	SlowSync   = 50 * time.Millisecond
	SlowPut    = 200 * time.Millisecond
	SlowLate   = 100 * time.Millisecond
	SlowAfter  = 15 * time.Second
	SlowClear  = 30 * time.Second
)
