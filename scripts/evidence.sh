#!/usr/bin/env bash
# Runs what docs/mlomae.md reports: every method with equal numbers of reconstruction steps, model micro, several seeds, judged by linear
# probe, k-nearest neighbours and fine-tuning; and ablations. Takes up where it was stopped: finished runs are kept, cut off ones resumed.
#
# usage: scripts/evidence.sh [STAGE...]       all stages, in this order, if none is given
#   main       mae, u-mae, fixed, blo-mae, mlo-mae
#   finetune   fine-tuning of those, and training from scratch
#   ablations  mlo-mae with one setting changed: unroll, patch, ratio, selection, weights, input, scale, learning rate
#   report     the table and the report of what is there
# environment:
#   MLO_CIFAR10=FOLDER   CIFAR-10 in its binary layout; without it that half is left out, with a word
#   MLO_EVIDENCE_STEPS   reconstruction steps (2000); MLO_EVIDENCE_IMAGES training images (10000; 0: all); MLO_EVIDENCE_SEEDS ("0 1 2")
#   MLO_EVIDENCE_OUT     where runs are kept (out/evidence); MLO_EVIDENCE_THREADS (1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

out=${MLO_EVIDENCE_OUT:-out/evidence}
steps=${MLO_EVIDENCE_STEPS:-2000}
images=${MLO_EVIDENCE_IMAGES:-10000}
threads=${MLO_EVIDENCE_THREADS:-1}
seeds=${MLO_EVIDENCE_SEEDS:-0 1 2}
fashion=/usr/share/datasets/fashion-mnist
mlomae=${MLO_EVIDENCE_PROGRAM:-build/release/bin/mlomae}
[ -n "${MLO_EVIDENCE_PROGRAM:-}" ] || build release mlomae_program
export OMP_NUM_THREADS=$threads
mkdir -p "$out"

sets=()
if [ -n "${MLO_CIFAR10:-}" ]; then sets+=("cifar10=$MLO_CIFAR10"); else say "MLO_CIFAR10 is not set: CIFAR-10 is left out"; fi
if [ -d "$fashion" ]; then sets+=("fashion=$fashion"); else say "$fashion is not there: Fashion-MNIST is left out"; fi

# pretrain RUN DATA arguments…
pretrain() {
  local run=$1 data=$2
  shift 2
  if grep -qs '"reason": "all steps taken"' "$run/run.json"; then return; fi
  if [ -e "$run/checkpoint.mlo" ]; then
    "$mlomae" pretrain --out "$run" --resume
  else
    rm -rf "$run"
    "$mlomae" pretrain --preset micro --data "$data" --threads "$threads" --set data.limit="$images" \
      --set run.reconstruction_steps="$steps" --out "$run" "$@"
  fi
}
# evaluate KIND RUN
evaluate() { [ -e "$2/evaluation/$1.json" ] || "$mlomae" evaluate "$1" "$2"; }

probe() { evaluate linear-probe "$1"; evaluate knn "$1"; }

main() {
  local seed set method
  for seed in $seeds; do
    for set in "${sets[@]}"; do
      for method in mae mlo-mae u-mae fixed blo-mae; do
        local run="$out/${set%%=*}-$method-$seed"
        # fixed: the paper's way of masking by a network that is never trained (at random, by rank).
        local own=()
        if [ "$method" = fixed ]; then own=(--set mask.selection=rank --set mask.zero_output=false); fi
        pretrain "$run" "${set#*=}" --method "$method" --seed "$seed" "${own[@]}"
        probe "$run"
      done
    done
  done
}

finetune() {
  local seed set method
  for seed in $seeds; do
    for set in "${sets[@]}"; do
      for method in mae mlo-mae u-mae fixed blo-mae; do evaluate finetune "$out/${set%%=*}-$method-$seed"; done
      evaluate scratch "$out/${set%%=*}-mae-$seed"
    done
  done
}

ablations() {
  local set setting
  for set in "${sets[@]:0:1}"; do
    for setting in pretrain.unroll=1 pretrain.unroll=5 model.patch=2 model.patch=8 mask.ratio=0.5 mask.ratio=0.9 mask.selection=rank \
      mask.weights=normalized mask.weights=straight-through mask.input=coupled pretrain.best_response=betty masker.lr=1e-4 masker.lr=1e-3; do
      local run="$out/ablation-${set%%=*}-$setting"
      pretrain "$run" "${set#*=}" --method mlo-mae --seed 0 --set "$setting"
      probe "$run"
    done
  done
}

report() {
  local runs=()
  for run in "$out"/*; do
    if [ -d "$run/evaluation" ]; then runs+=("$run"); fi
  done
  "$mlomae" report "${runs[@]}" -o "$out/report.html" --title "MLO-MAE: evidence" --json >"$out/table.json"
  say "$out/report.html, $out/table.json"
}

if [ $# -eq 0 ]; then set -- main finetune ablations report; fi
for stage in "$@"; do
  case $stage in
    main | finetune | ablations | report) "$stage" ;;
    *) say "unknown stage '$stage'; choose main, finetune, ablations or report" >&2; exit 2 ;;
  esac
done
