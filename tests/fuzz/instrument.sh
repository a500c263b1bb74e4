#!/usr/bin/env bash
# Builds zlib, libpng and libjpeg-turbo from the distribution's sources (Debian, Ubuntu), as static libraries in
# build/fuzz-libraries, with what libFuzzer and AddressSanitizer put into code; tests/fuzz/run.sh --libraries links them.
# Nothing of the system is changed: apt reads lists of its own here. A library whose sources cannot be had stays the system's,
# which the fuzzer does not see into; the script says so, and fails only if that goes for all three.
#
# usage: tests/fuzz/instrument.sh     what is built already is left alone; remove build/fuzz-libraries to build it again
# needs: clang cmake ninja-build make dpkg-dev
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
prefix=$PWD/build/fuzz-libraries
apt=$prefix/apt
log=$prefix/log
mkdir -p "$prefix" "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$log"
options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/parts" -o Dir::State::lists="$apt/lists"
         -o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)")
say() { printf 'instrument: %s\n' "$*"; }

get() { # get PACKAGE: unpacks the newest version of its sources of which all files are to be had
  local version
  while read -r version; do
    rm -rf "${prefix:?}/$1"
    mkdir -p "$prefix/$1"
    if (cd "$prefix/$1" && apt-get "${options[@]}" --only-source source "$1=$version") >>"$log" 2>&1; then
      say "$1 $version"
      return 0
    fi
    say "$1 $version: apt-get source cannot get or unpack it"
  done < <(apt-cache "${options[@]}" --only-source showsrc "$1" 2>>"$log" | sed -n 's/^Version: //p' | sort -rVu)
  return 1
}

export CC=clang CFLAGS="-O1 -g -fPIC -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address" ASAN_OPTIONS=detect_leaks=0
build_zlib() { (cd "$1" && ./configure --static --prefix="$prefix" && make libz.a && make install); }
build_by_cmake() { # build_by_cmake SOURCES OPTION...
  cmake -S "$1" -B "$1/built" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DCMAKE_INSTALL_LIBDIR="$prefix/lib" -DZLIB_ROOT="$prefix" "${@:2}" && cmake --build "$1/built" --target install
}

listed=
missing=0
while read -r library package build; do
  if [ -e "$prefix/lib/$library.a" ]; then continue; fi
  if [ -z "$listed" ]; then
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
      if [ -e "$list" ]; then
        sed -E 's/^deb([[:space:]])/deb-src\1/; s/^Types:.*/Types: deb-src/' "$list" >"$apt/parts/$(basename "$list")"
      fi
    done
    apt-get "${options[@]}" update >>"$log" 2>&1 || say "apt-get update had trouble, see $log"
    listed=yes
  fi
  read -ra build <<<"$build"
  if ! get "$package"; then
    say "no sources of $package can be had: $library stays the system's, uninstrumented"
  elif ! "${build[0]}" "$prefix/$package"/*/ "${build[@]:1}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "$package does not build, see $log: $library stays the system's, uninstrumented"
  elif ! nm "$prefix/lib/$library.a" 2>/dev/null | grep __sanitizer_cov_trace >/dev/null; then
    say "$library.a came out without instrumentation"
    rm -f "$prefix/lib/$library.a"
  fi
  if [ ! -e "$prefix/lib/$library.a" ]; then missing=$((missing + 1)); fi
done <<'LIBRARIES'
libz zlib build_zlib
libpng16 libpng1.6 build_by_cmake -DPNG_SHARED=OFF -DPNG_TESTS=OFF
libjpeg libjpeg-turbo build_by_cmake -DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF -DWITH_SIMD=OFF
LIBRARIES
[ "$missing" -lt 3 ]
