// Package simulate runs the allocator over clusters that do not exist. A scenario is a small text: nodes, keyspaces, what happens
// when, and what is expected. The planner that decides in a live cluster (package allocator) is asked as it is there; what carries
// its decisions out is a model: replicas take time to send, targets refuse above a limit, nodes die and are found dead late.
//
// It is pure: a scenario and a seed go in, the same result comes out on every run. The result counts what was moved against the
// least that any planner could have moved (bound.go), and checks what the scenario expects.
//
// # The language
//
// One statement a line; # begins a comment. Durations are Go's (90s, 10m), sizes have kB, MB, GB, TB.
//
//	seed 7                      of everything that is drawn
//	for 2h                      when to end; else when all is at rest after the last event
//	deciders 4                  planners that know a share of the ranges each, and of each other by refused reservations alone
//	rate 64MB                   that a node sends, and receives, a second
//	slots 4                     replicas that a node receives at once; a further one is refused
//	suspect 3s                  after which a dead node is suspect
//	catchup 5s                  that a node needs to catch up once it is back
//	ask 1s, step 1s, sample 10s how often planners are asked, the model steps, and the result is sampled
//	window 30m                  within which a replica that comes back to where it was counts as ping-pong
//	policy moves-per-node=4 moves=64 imbalance=0.05 balance=off failed-share=0.4 failed-tier=zone failed-after=5m
//	nodes 9 region=eu,eu,us zone=a..c attributes=ssd,hdd,- disk=1TB,4TB weight=1,4
//	keyspace k ranges=1000 replicas=3 size=lognormal(64MB,0.8) load=zipf(5000,1.1) noise=0.1 on=n1,n2,n3
//	         constraints="+region=eu:2 -zone=a ~ssd" leaders="+region=eu"
//
// (Each statement is on one line.) Values of nodes that are separated by commas are given out in turn; a..c stands for a,b,c and
// z1..z3 for z1,z2,z3. Everything but disk, weight and attributes is a tier of the locality, in the order in which they are written;
// attributes of one node are joined with +, and - is none. Sizes and loads of ranges are a number, uniform(LOW,HIGH),
// lognormal(MEDIAN,SIGMA), or zipf(TOTAL,EXPONENT). A keyspace's ranges begin where a planner would not touch them, or on the nodes of
// on=, all of them, with the first as leader.
//
// Events: nodes are n4, several of them, or zone=b.
//
//	at 10m add 3 nodes zone=d
//	at 20m fail n4              and: recover, drain, undrain, cordon, uncordon, decommission, recommission, slow, well
//	at 30m restart rolling down=10s [zone=b]
//	at 30m hot spot wanders every 1m over keyspace k share=0.3 for 20m
//	at 40m load k doubles       and: halves, x 1.5
//	at 50m keyspace k replicas=5
//	at 50m policy moves=128
//	then fail n5                when all is at rest after what was before it
//
// What is expected: at a time (at 25m expect …), before the next event (then expect …), or in the end:
//
//	at 25m expect imbalance count <= 1.05      and: bytes, load, leaders: the largest over the mean
//	expect worst violations = 0                at any time of the run; violations: ranges that break a constraint
//	expect unavailable = 0                     ranges without a quorum
//	expect under-replicated = 0                ranges with fewer replicas on live nodes than they should have
//	expect undiverse zone = 0                  ranges whose replicas could be in more zones
//	expect moves <= 1.05 x bound               since the last event; also: transfers, bytes, rest (a duration), twice
//	expect total moves <= 1.05 x bound         in the whole run
//	expect pingpong = 0                        and: refused (reservations), fullness (of the fullest disk, 0 to 1)
//	expect replicas n4 = 0                     and: leaders n4
//	expect withheld constraint > 0             ranges of which the planner says that it cannot, by goal
package simulate
