#!/usr/bin/env bash
# Every symbol of mlo that the shared library FILE exports must be of a class, function or constant that a header under FOLDER
# declares.
#
# usage: tests/symbols_test.sh FILE FOLDER
set -euo pipefail
file=$1
folder=$2

# "… T mlo::Engine::run(long)", "… V typeinfo for mlo::Error": the name behind mlo:: and mlo::detail::. Those that begin with
# something else are of templates that mlo's names are arguments of.
symbols=$(nm -DC --defined-only "$file" | cut -d' ' -f3-)
names=$(sed -nE 's/^((typeinfo( name)?|vtable|VTT|guard variable|non-virtual thunk|construction vtable) (for|to) )?mlo::(detail::)?([A-Za-z_0-9]+).*/\6/p' \
  <<<"$symbols" | LC_ALL=C sort -u)
if [ "$(wc -w <<<"$names")" -lt 50 ]; then
  echo "nm lists hardly a name of mlo in $file: this would prove nothing" >&2
  exit 2
fi
declared=$(find "$folder" -name '*.h' -exec cat {} +)
missing=()
for name in $names; do
  # A class with its body, a function, an operator, a constant; a class that is only named does not count.
  grep -qE "(class|struct) $name( final)?( :|  ?\{)|enum class $name\b|\b$name ?\(|\b$name( =|;)|using $name =" \
    < <(grep -vE "^ *(class|struct) [A-Za-z_]+;" <<<"$declared") || missing+=("$name")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "$file exports, and no header declares: ${missing[*]} "
  exit 1
fi
echo "$file: $(wc -w <<<"$names") names are exported, all of them declared in $folder"
