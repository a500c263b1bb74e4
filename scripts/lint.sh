#!/usr/bin/env bash
# What a machine can say of the sources without compiling them: layout, order of the layers, shell scripts, quoted snippets.
#
# usage: scripts/lint.sh [--fix | --tidy [BASE]]
#   --fix     lays the sources out instead of complaining
#   --tidy    then clang-tidy on the sources that have changed since BASE (HEAD): half a minute each, for LibTorch's headers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Versions lay code out differently; this is Debian 12's.
format=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$format" ] || ! command -v shellcheck >/dev/null; then
  echo "lint.sh: clang-format 14 and shellcheck are needed: apt-get install clang-format-14 shellcheck" >&2
  exit 1
fi
mapfile -t sources < <(git ls-files '*.h' '*.cpp')
if [ "${1:-}" = --fix ]; then
  "$format" -i "${sources[@]}"
else
  "$format" --dry-run -Werror "${sources[@]}"
fi
scripts/layers.sh
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
shellcheck -x -S warning "${scripts[@]}"
docs/check_snippets.sh ./*.md docs/*.md
echo "lint: ${#sources[@]} sources and ${#scripts[@]} scripts are in order"

if [ "${1:-}" = --tidy ]; then
  mapfile -t changed < <(git diff --name-only --diff-filter=d "${2:-HEAD}" -- '*.cpp')
  if [ ${#changed[@]} -eq 0 ]; then exit 0; fi
  # Not through the precompiled header, which would have to be made first.
  cmake --preset tidy -DCMAKE_CXX_CLANG_TIDY= -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DCMAKE_UNITY_BUILD=OFF >/dev/null
  clang-tidy -p build/tidy --quiet "${changed[@]}"  # advice, to be weighed
fi
