#!/usr/bin/env bash
# With one busy process beside it a run of two threads takes at most three times its time alone. Threads that spin while they
# wait for each other (OMP_WAIT_POLICY=active) take many times that. Best of three, since nobody knows what else is running.
#
# usage: shared_machine_test.sh MLOMAE
set -euo pipefail
# shellcheck source=tests/mlomae/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"
unset OMP_NUM_THREADS

processors=$(nproc)
if [ "$processors" -lt 2 ]; then
  echo "shared_machine_test: skipped: one processor"
  exit 0
fi

for i in "${!tiny[@]}"; do
  if [ "${tiny[i]}" = --threads ]; then tiny[i + 1]=$processors; fi
done
# Large enough that LibTorch divides the work among threads.
milliseconds() { # milliseconds of a run
  local from
  rm -rf timed
  from=$(date +%s%N)
  "$mlomae" pretrain "${tiny[@]}" --set model.dim=64 --set model.heads=4 --set pretrain.batch=28 \
    --set run.reconstruction_steps=200 --set run.validate_every=200 --set run.checkpoint_every=200 --out timed >out.txt 2>&1 ||
    fail "the run ended with $?: $(cat out.txt)"
  echo $((($(date +%s%N) - from) / 1000000))
}

busy=
trap 'rm -rf "$work"; [ -z "$busy" ] || kill "$busy" 2>/dev/null' EXIT
milliseconds >/dev/null  # the disk's part, once
for attempt in 1 2 3; do
  alone=$(milliseconds)
  (while :; do :; done) &
  busy=$!
  beside=$(milliseconds)
  kill "$busy"
  wait "$busy" 2>/dev/null || true
  busy=
  echo "attempt $attempt: alone $alone ms, beside a busy process $beside ms"
  if [ "$beside" -le $((3 * alone)) ]; then
    echo "shared_machine_test: ok"
    exit 0
  fi
done
fail "beside one busy process a run takes more than three times its time alone"
