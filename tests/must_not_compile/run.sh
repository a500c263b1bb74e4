#!/usr/bin/env bash
# A source that the compiler must refuse with MLO_WRONG defined, in the words of its line "// expect: …", and must accept without.
#
# usage: tests/must_not_compile/run.sh SOURCE COMPILER ARGUMENT...
set -euo pipefail
source=$1
shift
expected=$(sed -n 's|^// expect: ||p' "$source")
[ -n "$expected" ] || { echo "$source has no line '// expect: …'"; exit 1; }
"$@" -fsyntax-only "$source" || { echo "$source is refused as it stands: the control fails"; exit 1; }
if output=$("$@" -fsyntax-only -DMLO_WRONG "$source" 2>&1); then
  echo "$source is accepted with MLO_WRONG"
  exit 1
fi
grep -qE -- "$expected" <<<"$output" || { echo "$source is refused, but not for '$expected':"; head -n 20 <<<"$output"; exit 1; }
