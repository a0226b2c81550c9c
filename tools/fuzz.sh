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
while read -r package target; do
	echo "== $target ($package)"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
done <<<"$targets"
