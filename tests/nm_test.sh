#!/usr/bin/env bash
# A library neither prints, nor ends the process, nor takes its signals: nothing in FILE (a library or an object) may refer to
# a function that does. Two of them nm cannot judge, because inlined code of LibTorch and the compiler itself (where an
# exception would leave a destructor) refer to them: std::terminate and assert. No line of the SOURCES (files, folders) may
# call those.
#
# usage: tests/nm_test.sh FILE SOURCES...
set -euo pipefail
file=$1
shift
ls "$@" >/dev/null  # a folder that is not there would prove nothing

forbidden='std::w?(cout|cerr|clog)|std(out|err)'
forbidden+='|(__)?v?w?printf(_chk)?|puts|putchar|putwchar|perror|psignal'
forbidden+='|abort|exit|_exit|_Exit|quick_exit'
forbidden+='|signal|sigaction|bsd_signal|sysv_signal|__sysv_signal|raise|kill'

# A shared library's imports are its dynamic symbols; an object or an archive has only the other table.
table=()
case $file in *.so|*.so.*) table=(-D) ;; esac
if ! symbols=$(nm -C "${table[@]}" --undefined-only "$file") || [ -z "$symbols" ]; then
  echo "nm lists no undefined symbols of $file: this would prove nothing" >&2
  exit 2
fi
# Lines are like "                 U std::cout@GLIBCXX_3.4"; those of an archive stand below a line for each member.
found=$(sed -nE 's/^ +[Uwv] //; s/@.*$//; T; p' <<<"$symbols" | grep -xE "$forbidden" | LC_ALL=C sort -u | paste -sd' ' || true)
called=$(grep -rhoE --include='*.h' --include='*.cpp' '^([^/]|/[^/])*\b(terminate|assert)[[:space:]]*\(' "$@" |
  sed -E 's/.*\b(terminate|assert)[[:space:]]*\($/\1/' | LC_ALL=C sort -u | paste -sd' ' || true)
if [ -n "$found$called" ]; then
  echo "$file refers to: $found; its sources call: $called"
  exit 1
fi
echo "$file: $(wc -l <<<"$symbols") undefined symbols, none of them prints, ends the process or takes a signal"
