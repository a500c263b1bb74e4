#!/usr/bin/env bash
# Runs what docs/mlomae.md reports, for so many hours: a row is a run that is trained and judged, and the most telling rows come first.
# Takes up where it was stopped: finished rows are kept, cut off ones resumed, so that calling it again for some more hours goes on. Ends
# with the table and a page of what is there.
#
# usage: scripts/evidence.sh HOURS [STAGE...]     these stages, in this order, if none is given
#   object      objects on grounds (mlomae make-data): what is there to win by knowing where the object is, and who wins how much of it
#   gradients   the same, by how the hypergradient is taken
#   grounds     other grounds, and other sizes of the object
#   settings    one setting changed at a time, of the masker and of plain MAE
#   finetune    fine-tuning of the rows of `object`
#   natural     CIFAR-10 and Fashion-MNIST as they are
#   report      the table and the page alone
# environment:
#   MLO_CIFAR10=FOLDER    CIFAR-10 in its binary layout; without it its rows are left out, with a word
#   MLO_PHOTOGRAPHS=FOLDER  photographs, for that ground; likewise
#   MLO_EVIDENCE_SEEDS    "0 1 2 3 4"
#   MLO_EVIDENCE_OUT      where data and runs are kept (out/evidence)
#   MLO_EVIDENCE_PROGRAM  a mlomae that is built already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

hours=${1:-}
if ! awk "BEGIN { exit !(${hours:-x} + 0 > 0) }" 2>/dev/null; then sed -n '6,13p' "$0" >&2; exit 2; fi
shift
deadline=$(awk "BEGIN { print int($(date +%s) + 3600 * $hours) }")
out=${MLO_EVIDENCE_OUT:-out/evidence}
seeds=${MLO_EVIDENCE_SEEDS:-0 1 2 3 4}
mlomae=${MLO_EVIDENCE_PROGRAM:-build/release/bin/mlomae}
fashion=/usr/share/datasets/fashion-mnist
[ -n "${MLO_EVIDENCE_PROGRAM:-}" ] || build release mlomae_program
export OMP_NUM_THREADS=1 mlomae out deadline
mkdir -p "$out/data" "$out/runs"

# --- Rows. row NAME DATA KINDS arguments…: a run called NAME of the images in DATA, judged by KINDS.
rows=()
row() { rows+=("$(printf '%q ' "$@")"); }

# One row: nothing if it is finished or the time is up.
one() {
  local name=$1 data=$2 kinds=$3 run=$out/runs/$1
  shift 3
  if [ "$(date +%s)" -ge "$deadline" ]; then return; fi
  local missing=()
  for kind in ${kinds//,/ }; do [ -e "$run/evaluation/$kind.json" ] || missing+=("$kind"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! grep -qs '"reason": "all steps taken"' "$run/run.json"; then
    if [ -e "$run/checkpoint.mlo" ]; then
      "$mlomae" pretrain --out "$run" --resume
    else
      rm -rf "$run"
      "$mlomae" pretrain --data "$data" --threads 1 --out "$run" "$@"
    fi >"$run.log" 2>&1 || { printf '%s: see %s\n' "$name" "$run.log" >&2; return 1; }
  fi
  local list
  list=$(IFS=,; echo "${missing[*]}")
  "$mlomae" evaluate "$list" "$run" >>"$run.log" 2>&1 || { printf '%s: see %s\n' "$name" "$run.log" >&2; return 1; }
  grep -h ' %' "$run.log" | tail -n 4 | sed "s|.*runs/||" || true
}
export -f one

# A set of objects on a ground: pasted GROUND OBJECT → its folder.
pasted() {
  local folder=$out/data/$1-$2
  if [ ! -e "$folder/make-data.json" ]; then
    local photographs=()
    if [ "$1" = photographs ]; then photographs=(--photographs "$MLO_PHOTOGRAPHS"); fi
    "$mlomae" make-data --objects "$fashion" --ground "$1" "${photographs[@]}" --cut box --size 32 --object "$2" --train 10000 --test 4000 \
      --out "$folder" >/dev/null
  fi
  echo "$folder"
}

# The settings of `object` and the like: a small encoder, so that a row is minutes.
small=(--preset demo)
known=(--method oracle --set masker.selects=uniform --set masker.weighs=normalized)
whole=(--set masker.network=image --set masker.input=held --set masker.hidden=512 --set masker.selects=sampled --set masker.weighs=probability
  --set masker.lr=1e-5 --set model.head_norm=layer --set model.head_dropout=0.1 --set head.lr=1e-3)

# object_rows GROUND OBJECT SEED short|all: the first five say what there is to win, who wins it, and what no training and weights by chance do.
object_rows() {
  local data name=$1-$2 at="$3"
  data=$(pasted "$1" "$2")
  local given=("$data" "linear-probe,knn" "${small[@]}" --set data.maps="$data" --seed "$at")
  row "$name-mae-$at" "${given[@]}" --method mae
  row "$name-known_weights-$at" "${given[@]}" "${known[@]}"
  row "$name-mlo_mae-$at" "${given[@]}" --method mlo-mae
  row "$name-untrained-$at" "${given[@]}" --method mae --set run.reconstruction_steps=1
  row "$name-chance-$at" "${given[@]}" --method fixed --set masker.zero_output=false --set masker.softmax_temperature=0.02
  [ "$4" = all ] || return 0
  row "$name-whole_image-$at" "${given[@]}" --method mlo-mae "${whole[@]}"
  row "$name-positions-$at" "${given[@]}" --method mlo-mae --set masker.network=positions
  row "$name-known_masks-$at" "${given[@]}" --method oracle --set masker.selects=sampled --set masker.weighs=alike --set masker.map_logit=1
  row "$name-known_visible-$at" "${given[@]}" --method oracle --set masker.selects=sampled --set masker.weighs=alike --set masker.map_logit=-1
  row "$name-mae_longer-$at" "${given[@]}" --method mae --set run.reconstruction_steps=8000 # about as many as in the time of mlo-mae's 800
  row "$name-sup_mae-$at" "${given[@]}" --method sup-mae --set baselines.tradeoff=0.01
  row "$name-blo_mae-$at" "${given[@]}" --method blo-mae
}

object() {
  local at which
  for which in short all; do
    for at in $seeds; do object_rows noise 16 "$at" $which; done
  done
}

grounds() {
  local at ground size
  for at in $seeds; do
    for size in 16 12 20; do
      for ground in noise stripes clutter photographs; do
        if [ "$ground" = photographs ] && [ ! -d "${MLO_PHOTOGRAPHS:-}" ]; then continue; fi
        if [ "$ground-$size" != noise-16 ]; then object_rows "$ground" "$size" "$at" short; fi
      done
    done
  done
}

gradients() {
  local at data
  data=$(pasted noise 16)
  for at in $seeds; do
    local given=("$data" "linear-probe,knn" "${small[@]}" --set data.maps="$data" --method mlo-mae --seed "$at")
    row "gradient-betty-$at" "${given[@]}" --set pretrain.best_response=betty --set head.best_response=betty
    row "gradient-darts-$at" "${given[@]}" --set pretrain.best_response=darts
    row "gradient-one_step-$at" "${given[@]}" --set pretrain.best_response=one-step
    row "gradient-neumann-$at" "${given[@]}" --set pretrain.best_response=neumann
    row "gradient-cg-$at" "${given[@]}" --set pretrain.best_response=cg
  done
}

# settings SETTING…: of the masker, and of plain MAE, as much tuned.
settings() {
  local data setting method
  data=$(pasted noise 16)
  for setting in pretrain.lr=5e-4 pretrain.lr=2e-3 masker.ratio=0.5 masker.ratio=0.9; do
    for method in mae mlo-mae; do
      row "setting-$method-$setting" "$data" "linear-probe,knn" "${small[@]}" --set data.maps="$data" --method "$method" --seed 100 --set "$setting"
    done
  done
  for setting in masker.network=attention masker.input=held masker.weighs=normalized masker.weighs=bounded masker.weighs=probability \
    masker.weighs=straight-through masker.selects=sampled masker.selects=own masker.lr=1e-3 masker.lr=1e-2 masker.softmax_temperature=2 masker.floor=0.3 masker.delay=0.2 \
    masker.optimizer=sgd model.head_norm=layer model.head_reads=mean model.head_dropout=0.1 head.lr=1e-3 head.batch=64 head.unroll=4 pretrain.unroll=4; do
    row "setting-mlo-mae-$setting" "$data" "linear-probe,knn" "${small[@]}" --set data.maps="$data" --method mlo-mae --seed 100 --set "$setting"
  done
}

finetune() {
  local at kind
  for at in $seeds; do
    for kind in mae known_weights mlo_mae; do
      [ -e "$out/runs/noise-16-$kind-$at/run.json" ] && row "noise-16-$kind-$at" - finetune
    done
  done
  return 0
}

natural() {
  local at set
  declare -A of=([fashion]=$fashion [cifar10]=${MLO_CIFAR10:-})
  for at in $seeds; do
    for set in cifar10 fashion; do
      if [ ! -d "${of[$set]}" ]; then continue; fi
      local given=("${of[$set]}" "linear-probe,knn" --preset micro --set run.reconstruction_steps=1000 --seed "$at")
      row "$set-mae-$at" "${given[@]}" --method mae
      row "$set-mlo_mae-$at" "${given[@]}" --method mlo-mae
      row "$set-whole_image-$at" "${given[@]}" --method mlo-mae "${whole[@]}"
    done
  done
}

report() {
  local runs=() run
  for run in "$out"/runs/*; do
    if [ -d "$run/evaluation" ]; then runs+=("$run"); fi
  done
  [ ${#runs[@]} -gt 0 ] || { say "nothing is judged yet"; return 0; }
  "$mlomae" report "${runs[@]}" -o "$out/report.html" --title "MLO-MAE: evidence" --json >"$out/table.json"
  say "$out/report.html, $out/table.json"
}

if [ $# -eq 0 ]; then set -- object gradients grounds settings finetune natural; fi
for stage in "$@"; do
  case $stage in
    object | gradients | grounds | settings | finetune | natural) "$stage" ;;
    report) ;;
    *) say "unknown stage '$stage'; choose object, gradients, grounds, settings, finetune, natural or report" >&2; exit 2 ;;
  esac
done
[ -d "${MLO_CIFAR10:-}" ] || say "CIFAR-10 is left out: no folder '${MLO_CIFAR10:-}'"
failed=0
if [ ${#rows[@]} -gt 0 ]; then
  printf '%s\0' "${rows[@]}" | xargs -0 -P "$(env -u OMP_NUM_THREADS nproc)" -I{} bash -c 'eval "one $1"' _ {} &
  workers=$!
  # What is cut off saves itself and is resumed next time.
  trap 'kill "$workers"; pkill -TERM -f -- "--out $out/runs/"' EXIT
  wait "$workers" || failed=1
  trap - EXIT
fi
report
exit $failed
