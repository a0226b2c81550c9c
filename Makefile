# Everything is done with Go and make. The tools are Go modules under tools/, pinned and apart from the product's go.mod.

.DEFAULT_GOAL := help
SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c

# The version stands in cmd/cairn; Go stamps the commit into the binary where git can tell it.
VCS      := $(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo auto || echo false)
FUZZTIME ?= 10s
BUF         := go tool -modfile=tools/buf/go.mod buf
STATICCHECK := go tool -modfile=tools/gen/go.mod staticcheck

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/cairn, static
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(VCS) -o bin/cairn ./cmd/cairn

.PHONY: demo
demo: build ## run a cluster of three nodes on this machine
	bin/cairn demo

.PHONY: test
test: ## run every test
	go test -timeout 25m ./...

# Not node/e2e: the binary that it builds is the one that is shipped, without race detector and invariants.
IN_PROCESS = $$(go list ./... | grep -v '/node/e2e$$')
# Not the core nor the simulator: they start no goroutine.
SHELL_PACKAGES = $$(go list ./... | grep -vE '/(node/e2e|raftgroup.*|meta/.*|allocator.*|kv/eval|kv/keys|linearizability/(sim|workloads|models|checkers)|linearizability)$$')

.PHONY: race
race: ## run the tests of the shell under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race $(SHELL_PACKAGES)

.PHONY: invariants
invariants: ## run the tests with the costly invariants checked
	go test -tags invariants $(IN_PROCESS)

# -count=1: Go's test cache does not see that the binary, which the tests build, has changed.
.PHONY: e2e
e2e: build etcdctl ## run the tests with real processes, and a session of etcdctl
	go test -count=1 ./node/e2e
	.ci/session
	.ci/session-services

.PHONY: lint
lint: ## check the format, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags invariants ./...
	go vet -tags mutants ./...
	$(STATICCHECK) ./...

.PHONY: proto
proto: ## generate api/**/*.pb.go
	$(BUF) lint
	$(BUF) generate

.PHONY: proto-check
proto-check: ## check that api/**/*.pb.go is what its .proto files say
	$(BUF) lint
	tools/proto-check.sh $(BUF)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (10s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## compare with etcd, at length: interleaved blocks (see bench/README.md)
	cd bench && go run ./cmd/bench

.PHONY: bench-quick
bench-quick: ## compare with etcd in below two minutes; the figures are rough
	cd bench && go run ./cmd/bench -quick

.PHONY: bench-failover
bench-failover: ## how long no write succeeds after something befalls the leader's node, against etcd (root; 15 minutes)
	@if [ "$$(id -u)" != 0 ]; then echo "SKIPPED bench-failover: namespaces and file systems are made by root alone"; exit 0; fi; \
	cd bench && go run ./cmd/failover

.PHONY: bench-idle
bench-idle: ## what idle ranges cost: CPU, frames, memory, restart, failover of many (10 minutes)
	cd bench/idle && go run .

.PHONY: bench-ranges
bench-ranges: ## what many ranges cost: puts, gets, splits, snapshots, scans (15 minutes; RANGES_FLAGS=-quick: 2)
	cd bench/ranges && go run . $(RANGES_FLAGS)

.PHONY: bench-watch
bench-watch: ## watches and leases beside etcd's: fan-out, latency, memory, keep-alives, expiry, catching up (25 minutes; WATCH_FLAGS=-quick: 5)
	cd bench && go run ./cmd/watch $(WATCH_FLAGS)

.PHONY: bench-moves
bench-moves: ## what replicas that move cost those who write meanwhile (5 minutes; RANGES_FLAGS=-quick: 2)
	cd bench/ranges && go run . -parts moves $(RANGES_FLAGS)

.PHONY: bench-big
bench-big: ## ten million keys: filled, split by itself, scanned, emptied, merged by itself (10 minutes)
	cd bench/ranges && go run . -parts big $(RANGES_FLAGS)

.PHONY: bench-allocator
bench-allocator: ## the planner over 1,000 nodes and a million ranges: passes, memory, what is moved beside what must be (10 minutes; ALLOCATOR_FLAGS=-quick: 1)
	cd bench/allocator && go run . $(ALLOCATOR_FLAGS)

.PHONY: etcdctl
etcdctl: ## build the unmodified etcdctl into bin/
	cd tools/etcdctl && go build -trimpath -o ../../bin/etcdctl go.etcd.io/etcd/etcdctl/v3

SEED ?= 1
N    ?= 300

.PHONY: sim
sim: ## run one seed of the simulated cluster, SEED, with a trace in out/sim
	@mkdir -p out/sim
	go run ./cmd/sim run --seed $(SEED) --twice --trace out/sim/trace-$(SEED).txt

.PHONY: sim-many
sim-many: ## run N (300) seeds of the simulated cluster; FIRST is the first, failing ones go to out/sim
	go build -trimpath -o bin/sim ./cmd/sim
	bin/sim many --first $(or $(FIRST),1) --seeds $(N) $(if $(SIM_FLAGS),$(SIM_FLAGS))

.PHONY: mutant-laws
mutant-laws: ## plant the known mistakes that laws and stories of a package find, each in its own run of those, or a fault that aims
	go test -tags mutants ./internal/mutant ./meta/...
	go test -tags mutants -run TestAimedMutants ./linearizability/sim

.PHONY: mutants
mutants: ## plant known mistakes, one after the other, and see that the simulator finds each
	go build -trimpath -tags mutants -o bin/sim-mutants ./cmd/sim
	bin/sim-mutants mutants $(if $(MUTANT_FLAGS),$(MUTANT_FLAGS))

JEPSEN_FOR     ?= 10m
JEPSEN_NEMESIS ?= all
JEPSEN_NAME    ?= $$(date -u +%Y%m%d-%H%M%S)

.PHONY: jepsen
jepsen: build ## run real processes under every fault for JEPSEN_FOR (10m), into out/jepsen (root)
	go build -trimpath -o bin/jepsen ./cmd/jepsen
	bin/jepsen run --for $(JEPSEN_FOR) --nemesis $(JEPSEN_NEMESIS) --report out/jepsen/$(JEPSEN_NAME)

.PHONY: jepsen-watch
jepsen-watch: build ## hold more than a million events of watches against what was written, and leases, under every fault, for JEPSEN_FOR (root)
	go build -trimpath -o bin/jepsen ./cmd/jepsen
	bin/jepsen run --for $(JEPSEN_FOR) --workload watch,spread-watch,lock,spread-lock --clients 100 --nemesis $(JEPSEN_NEMESIS) --report out/jepsen/$(JEPSEN_NAME)-watch

.PHONY: jepsen-quick
jepsen-quick: build ## run real processes under a drawn part of the faults, ranges that are cut, nodes that come and go, watches and leases, for seven minutes (root)
	go build -trimpath -o bin/jepsen ./cmd/jepsen
	bin/jepsen run --for 130s --workload register,set,append,bank,monotonic,liveness --nemesis $(JEPSEN_NEMESIS) --report out/jepsen/$(JEPSEN_NAME)
	bin/jepsen run --for 50s --workload spread,spread-append,spread-bank --mix --nemesis splits-merges,kill-one,halves --report out/jepsen/$(JEPSEN_NAME)-ranges
	bin/jepsen run --for 60s --workload register,spread,placement,liveness --nemesis decommission-leader,rolling,fail-one,moves --report out/jepsen/$(JEPSEN_NAME)-members
	bin/jepsen run --for 50s --workload watch,spread-watch,lock,spread-lock --clients 60 --nemesis kill-leader,pause-leader,splits-merges --report out/jepsen/$(JEPSEN_NAME)-watch

.PHONY: clean
clean: ## remove what was built
	rm -rf bin out bench/out
