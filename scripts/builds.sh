#!/usr/bin/env bash
# Builds that the tests do not make: by clang, and as a static library by g++. The one by clang compiles each source alone, so
# that an include that is missing shows. Runs a few programs of each.
#
# usage: scripts/builds.sh [clang | static]...     both, if none is named; in build/builds/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

scripts/setup.sh
if [ $# -eq 0 ]; then set -- clang static; fi
for which in "$@"; do
  options=(-DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0 -DMLO_TESTS=OFF -DMLO_DEVELOPER=ON)
  case $which in
    clang) options+=(-DCMAKE_CXX_COMPILER=clang++ -DCMAKE_UNITY_BUILD=OFF) ;;
    static) options+=(-DBUILD_SHARED_LIBS=OFF -DCMAKE_UNITY_BUILD=ON) ;;
    *) echo "builds.sh: there is no build '$which'; there are clang and static" >&2; exit 2 ;;
  esac
  folder=build/builds/$which
  say "building $folder"
  cmake -G Ninja -S . -B "$folder" "${options[@]}" >/dev/null
  cmake --build "$folder" --parallel "$jobs" -- -k 0
  "$folder/examples/hello/hello" >/dev/null
  "$folder/examples/own_method/own_method" >/dev/null
  "$folder/bin/mlomae" config --preset demo >/dev/null
  say "$which: built, and its programs run"
done
