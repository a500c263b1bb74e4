#!/usr/bin/env bash
# Every C++ block of the documentation is quoted from a compiled file: each ```cpp block stands under a line
#   <!-- FILE [NAME] -->
# and must be what FILE has between two lines "// [NAME]", less its common indentation. Links to files of the project must lead
# to one.
#
# usage: docs/check_snippets.sh [--write] FILE.md...
#   --write   quote the sources anew instead of comparing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
write=
if [ "${1:-}" = --write ]; then write=yes; shift; fi
if [ $# -eq 0 ]; then sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; fi

failed=0
complain() { printf '%s\n' "$*" >&2; failed=1; }

quoted() { # quoted FILE NAME: the lines between the marks, less their common indentation
  awk -v mark="// [$2]" '
    { line = $0; sub(/^ +/, "", line) }
    line == mark { inside = !inside; next }
    inside { lines[++n] = $0; if ($0 ~ /[^ ]/) { match($0, /^ */); if (indent == "" || RLENGTH < indent) indent = RLENGTH } }
    END { for (i = 1; i <= n; ++i) print substr(lines[i], indent + 1) }' "$root/$1"
}

check() { # check DOCUMENT: complains of it, and puts it with its blocks quoted anew into $result
  local document=$1 line number=0 mark='' begin=0 block='' file='' name=''
  result=
  while IFS= read -r line; do
    number=$((number + 1))
    if [ "$begin" -gt 0 ]; then
      if [ "$line" != '```' ]; then block+=$line$'\n'; continue; fi
      local source
      source=$(quoted "$file" "$name")
      if [ -z "$source" ]; then
        complain "$document:$begin: $file has nothing between marks // [$name]"
      elif [ -z "$write" ] && [ "$block" != "$source"$'\n' ]; then
        complain "$document:$begin: this block is not what $file has between its marks // [$name]; docs/check_snippets.sh --write quotes it anew"
        diff <(printf '%s\n' "$source") <(printf '%s' "$block") >&2 || true
      fi
      result+=$source$'\n'
      begin=0
    elif [[ $line == '```cpp'* ]]; then
      if [[ ! $mark =~ ^\<!--\ ([^ ]+)\ \[([a-z_]+)\]\ --\>$ ]]; then
        complain "$document:$number: a C++ block needs a line '<!-- FILE [NAME] -->' above it"
      elif [ ! -f "$root/${BASH_REMATCH[1]}" ]; then
        complain "$document:$number: there is no file ${BASH_REMATCH[1]}"
      else
        file=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]} begin=$number block=
      fi
    fi
    result+=$line$'\n'
    mark=$line
  done <"$document"
  [ "$begin" -eq 0 ] || complain "$document:$begin: this block does not end"

  local link
  while IFS= read -r link; do
    [ -e "$(dirname "$document")/${link%%#*}" ] || complain "$document: the link to $link leads nowhere"
  done < <(awk '/^```/ { code = !code } !code' "$document" | grep -oE '\]\([^)]+\)' | sed -E 's/^\]\(//; s/\)$//' | grep -vE '^(https?:|#)' || true)
}

for document in "$@"; do
  check "$document"
  if [ -n "$write" ] && [ "$failed" = 0 ]; then printf '%s' "$result" >"$document"; fi
done
exit $failed
