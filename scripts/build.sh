# shellcheck shell=bash
# For the other scripts to source, in the repository root: build PRESET [TARGET] sets up what is missing, configures, builds.
# Gives $jobs, the number of processes to run in parallel.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }

jobs=${MLO_JOBS:-}
if [ -z "$jobs" ]; then
  # A compiler that reads LibTorch's headers takes up to 2.5 GB.
  jobs=$(awk '/^MemAvailable:/ { print int($2 / 2500000) }' /proc/meminfo)
  processors=$(nproc)
  if [ "$jobs" -gt "$processors" ]; then jobs=$processors; fi
  if [ "$jobs" -lt 1 ]; then jobs=1; fi
fi

build() {
  local preset=$1 target=${2:-all}
  scripts/setup.sh
  local options=()
  # The preset asan is for the CPU and says so itself.
  if [ "$preset" != asan ]; then options+=("-DMLO_CUDA=${MLO_CUDA:-AUTO}"); fi
  # From nothing, several sources at a time: a third of the time. Who works on single files configures without, and that stays so.
  if [ ! -e "build/$preset/CMakeCache.txt" ]; then options+=(-DCMAKE_UNITY_BUILD=ON); fi
  say "configuring build/$preset"
  local log="build/configure-$preset.log"
  mkdir -p build
  if ! cmake --preset "$preset" "${options[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  grep -- '^-- mlo:' "$log"
  say "building build/$preset ($jobs at a time; the first build takes minutes)"
  cmake --build --preset "$preset" --target "$target" --parallel "$jobs"
}
