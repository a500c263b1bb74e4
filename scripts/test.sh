#!/usr/bin/env bash
# Sets up what is missing, builds the preset `dev` and runs its tests.
#
# usage: scripts/test.sh [--asan] [ctest arguments]
#   --asan   the preset `asan` instead: AddressSanitizer and UndefinedBehaviorSanitizer
# environment:
#   MLO_CUDA=AUTO|ON|OFF   (AUTO)
#   MLO_JOBS=n             parallel compilers and tests (as many as there are processors, and 2.5 GB of memory for each)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

preset=dev
if [ "${1:-}" = --asan ]; then
  preset=asan
  shift
fi
scripts/setup.sh --tests
build "$preset"
say "running the tests"
ctest --preset "$preset" --parallel "$jobs" "$@"
