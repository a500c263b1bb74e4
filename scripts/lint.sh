#!/usr/bin/env bash
# What a machine can say of the sources without compiling them: layout, order of the layers, shell scripts, quoted snippets.
#
# usage: scripts/lint.sh [--fix]     --fix: lays the sources out instead of complaining
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
echo "lint: ${#sources[@]} sources and ${#scripts[@]} scripts are in order"
