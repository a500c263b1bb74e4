#!/usr/bin/env bash
# A library neither prints, nor ends the process, nor takes its signals: nothing in FILE (a library or an object) may refer to
# a function that does.
#
# usage: tests/nm_test.sh FILE
set -euo pipefail
file=$1

forbidden='std::w?(cout|cerr|clog)|std(out|err)'
forbidden+='|(__)?v?w?printf(_chk)?|puts|putchar|putwchar|perror|psignal'
forbidden+='|abort|exit|_exit|_Exit|quick_exit|at_quick_exit|std::terminate\(\)|__assert_fail|__assert_perror_fail|std::__glibcxx_assert_fail\(.*\)'
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
if [ -n "$found" ]; then
  echo "$file refers to: $found"
  exit 1
fi
echo "$file: $(wc -l <<<"$symbols") undefined symbols, none of them prints, ends the process or takes a signal"
