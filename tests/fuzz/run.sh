#!/usr/bin/env bash
# Builds the preset `fuzz` and gives each reader to libFuzzer, one after the other; stops at the first finding, whose input is kept.
#
# usage: tests/fuzz/run.sh [SECONDS [TARGET...]]     600 seconds each; checkpoint safetensors idx cifar png jpeg settings
# needs: clang++ and its runtime (Debian: clang libclang-rt-dev)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-600}
shift $(($# > 0))
if [ $# -eq 0 ]; then set -- checkpoint safetensors idx cifar png jpeg settings; fi
scripts/setup.sh
mkdir -p build
cmake --preset fuzz >build/configure-fuzz.log || { cat build/configure-fuzz.log >&2; exit 1; }
cmake --build --preset fuzz --target mlo_fuzz
export ASAN_OPTIONS=detect_leaks=0:detect_container_overflow=0 OMP_NUM_THREADS=1
for target; do
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus"
  export MLO_FUZZ_TARGET=$target MLO_FUZZ_SEEDS=$corpus
  build/fuzz/tests/mlo_fuzz -runs=1 >/dev/null 2>&1  # leaves the seeds
  printf '%s: ' "$target"
  # A timeout or a gigabyte counts as a finding, too.
  if ! build/fuzz/tests/mlo_fuzz -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=65536 \
    -artifact_prefix="build/fuzz/$target-" "$corpus" >"build/fuzz/$target.log" 2>&1; then
    tail -n 40 "build/fuzz/$target.log" >&2
    exit 1
  fi
  grep -o 'Done .*' "build/fuzz/$target.log"
done
