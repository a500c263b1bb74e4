#!/usr/bin/env bash
# Holds the order of the layers: a source may include what stands in its own room or in one below, and nothing above.
#
# usage: scripts/layers.sh     prints each include that runs up; status 1 if there is one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Lowest first. The files directly in src/ (text.h, libtorch_error.h, …) are under all of them.
layers="tensors io replay data optim level hypergradient engine callbacks"
# Public headers that only the engine and what stands on it may see.
engine_headers='mlo/(engine|engine_options|callback|check|run_summary|load_options|mlo)\.h|mlo/callbacks/'

mapfile -t sources < <(git ls-files 'src/*.h' 'src/*.cpp' 'include/mlo/*.h')
awk -v layers="$layers" -v engine_headers="$engine_headers" '
  BEGIN { count = split(layers, names, " "); for (i = 1; i <= count; ++i) floor[names[i]] = i }
  FNR == 1 { room = FILENAME; sub(/^(src|include\/mlo)\//, "", room); if (!sub(/\/.*/, "", room)) room = "" }
  /^#include "/ {
    included = $2; gsub(/"/, "", included)
    if (included ~ engine_headers) wanted = floor["engine"]
    else { other = included; sub(/^mlo\//, "", other); wanted = sub(/\/.*/, "", other) ? floor[other] : 0 }
    # Public headers directly in mlo/ are of any layer; those of a room are of that room.
    if (room == "") next
    if (!(room in floor)) { print FILENAME ": the room \"" room "\" has no place in scripts/layers.sh"; bad = 1; nextfile }
    if (wanted > floor[room]) { print FILENAME ":" FNR ": " room " is below " included; bad = 1 }
  }
  END { exit bad }
' "${sources[@]}"

# The flagship's rooms, lowest first; message.h is under all of them.
rooms="config models data levels run evaluation training report program"
mapfile -t sources < <(git ls-files 'problems/mlomae/*.h' 'problems/mlomae/*.cpp')
awk -v rooms="$rooms" '
  BEGIN { count = split(rooms, names, " "); for (i = 1; i <= count; ++i) floor[names[i]] = i }
  FNR == 1 { split(FILENAME, place, "/"); room = place[3] }
  /^#include "mlomae\// {
    split($2, place, "/")
    if (room in floor && floor[place[2]] > floor[room]) { print FILENAME ":" FNR ": " room " is below " $2; bad = 1 }
  }
  END { exit bad }
' "${sources[@]}"
