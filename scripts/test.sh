#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# test.sh - build twice (plain for real VMs, with sanitizers for unit and device tests) and run everything.
# usage: scripts/test.sh [--full] [name...]; names select suites ("reference", "run", …)
set -eu
cd "$(dirname "$0")/.."
begun=$(date +%s)
scripts/build.sh build
scripts/build.sh build-asan -Db_sanitize=address,undefined -Db_lundef=false
exec python3 scripts/run-tests.py --begun "$begun" "$@"
