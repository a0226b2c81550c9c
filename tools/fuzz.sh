#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, one after the other: go test takes one at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each target runs, for example 10s}

# go test -list prints a package's targets, then its "ok" line.
targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ {names = names " " $1}
	$1 == "ok" {n = split(names, a, " "); for (i = 1; i <= n; i++) print $2, a[i]; names = ""}')
if [ -z "$targets" ]; then
	echo "no fuzz target found" >&2
	exit 1
fi
output=$(mktemp)
trap 'rm -f "$output"' EXIT
while read -r package target; do
	echo "== $target ($package)"
	if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" 2>&1 | tee "$output"; then
		continue
	fi
	# Before Go 1.27 the end of -fuzztime itself may be told as a failure (golang.org/issue/75804): then nothing but
	# that line stands there. A finding writes its input, a panic or a hang its stacks.
	if [ "$(grep -A1 -- "^--- FAIL: $target" "$output" | tail -1 | tr -d ' ')" = contextdeadlineexceeded ] &&
		! grep -q 'Failing input' "$output"; then
		echo "== $target: not a finding: the fuzzer told the end of its time as an error"
		continue
	fi
	exit 1
done <<<"$targets"
