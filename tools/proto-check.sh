#!/usr/bin/env bash
# Generates the code of every .proto file into a folder of its own and compares it with api/, so that the
# working tree is left as it was. The arguments are the command that runs buf.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$@" generate -o "$fresh"

if ! diff -rq --exclude='*.proto' --exclude=gateway.yaml "$fresh/api" api; then
	echo "api/ is not what its .proto files say: run 'make proto' and commit the result" >&2
	exit 1
fi
