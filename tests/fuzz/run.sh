#!/usr/bin/env bash
# Builds the preset `fuzz` and gives each reader to libFuzzer, one after the other; stops at the first finding, whose input is kept.
#
# usage: tests/fuzz/run.sh [--libraries] [SECONDS [TARGET...]]     600 seconds each; checkpoint safetensors idx cifar png jpeg settings
#   --libraries   with zlib, libpng and libjpeg-turbo built by tests/fuzz/instrument.sh, so that the fuzzer sees into them, too
# needs: clang++ and its runtime (Debian: clang libclang-rt-dev)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=build/fuzz
libraries=
if [ "${1:-}" = --libraries ]; then
  build=build/fuzz-libraries/mlo
  libraries=$PWD/build/fuzz-libraries
  shift
fi
seconds=${1:-600}
shift $(($# > 0))
if [ $# -eq 0 ]; then set -- checkpoint safetensors idx cifar png jpeg settings; fi
scripts/setup.sh
mkdir -p build
options=()
if [ -n "$libraries" ]; then
  tests/fuzz/instrument.sh
  # Found anew, as there may be libraries that were not there before. One program, so that each of them is in it once.
  options=(-U "ZLIB_*" -U "PNG_*" -U "JPEG_*" -DBUILD_SHARED_LIBS=OFF
           -DZLIB_ROOT="$libraries" -DPNG_ROOT="$libraries" -DJPEG_ROOT="$libraries")
fi
cmake --preset fuzz -B "$build" "${options[@]}" >build/configure-fuzz.log || { cat build/configure-fuzz.log >&2; exit 1; }
cmake --build "$build" --target mlo_fuzz
if [ -n "$libraries" ]; then
  for library in libz libpng16 libjpeg; do
    if [ -e "$libraries/lib/$library.a" ] && ldd "$build/tests/mlo_fuzz" | grep "$library\.so" >/dev/null; then
      printf '%s: the system has been linked, not %s\n' "$library" "$libraries/lib/$library.a" >&2
      exit 1
    fi
  done
fi
export ASAN_OPTIONS=detect_leaks=0:detect_container_overflow=0 OMP_NUM_THREADS=1
for target; do
  corpus=$build/corpus/$target
  mkdir -p "$corpus"
  export MLO_FUZZ_TARGET=$target MLO_FUZZ_SEEDS=$corpus
  "$build/tests/mlo_fuzz" -runs=1 >/dev/null 2>&1  # leaves the seeds
  printf '%s: ' "$target"
  # A timeout or a gigabyte counts as a finding, too.
  if ! "$build/tests/mlo_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=65536 \
    -artifact_prefix="$build/$target-" "$corpus" >"$build/$target.log" 2>&1; then
    tail -n 40 "$build/$target.log" >&2
    exit 1
  fi
  grep -o 'Done .*' "$build/$target.log"
done
