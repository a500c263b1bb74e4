#!/usr/bin/env bash
# Runs what docs/mlomae.md reports: every method with equal numbers of reconstruction steps, model micro, three seeds, judged by linear
# probe, k-nearest neighbours and fine-tuning; and ablations. Takes up where it was stopped: finished runs are kept, cut off ones resumed.
# The data sets run side by side, on one thread each: four to six hours on two cores.
#
# usage: scripts/evidence.sh [STAGE...]       all stages, in this order, if none is given
#   main       mae, mlo-mae, u-mae, fixed, blo-mae; and mae after a single step, which is an encoder as it was initialized
#   ablations  one setting changed: of mae to tune it, of mlo-mae; on the last of the data sets, seed 0
#   finetune   fine-tuning of mae and mlo-mae, and training from scratch
#   report     the table and the report of what is there
# environment:
#   MLO_CIFAR10=FOLDER    CIFAR-10 in its binary layout; without it that half is left out, with a word
#   MLO_EVIDENCE_SEEDS    "0 1 2"
#   MLO_EVIDENCE_OUT      where runs are kept (out/evidence)
#   MLO_EVIDENCE_PROGRAM  a mlomae that is built already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

out=${MLO_EVIDENCE_OUT:-out/evidence}
seeds=${MLO_EVIDENCE_SEEDS:-0 1 2}
mlomae=${MLO_EVIDENCE_PROGRAM:-build/release/bin/mlomae}
[ -n "${MLO_EVIDENCE_PROGRAM:-}" ] || build release mlomae_program
export OMP_NUM_THREADS=1
mkdir -p "$out"

# The sizes: training images (0: all), reconstruction steps, epochs of fine-tuning; a larger patch that divides the image.
declare -A data=([fashion]=/usr/share/datasets/fashion-mnist [cifar10]=${MLO_CIFAR10:-}) images=([fashion]=10000 [cifar10]=0) \
  steps=([fashion]=600 [cifar10]=1000) epochs=([fashion]=10 [cifar10]=3) \
  patch=([fashion]=7 [cifar10]=8)
sets=()
for set in cifar10 fashion; do
  if [ -d "${data[$set]}" ]; then sets+=("$set"); else say "$set is left out: no folder '${data[$set]}'"; fi
done
[ ${#sets[@]} -gt 0 ] || exit 2

# pretrain RUN SET arguments…
pretrain() {
  local run=$1 set=$2
  shift 2
  if grep -qs '"reason": "all steps taken"' "$run/run.json"; then return; fi
  if [ -e "$run/checkpoint.mlo" ]; then
    "$mlomae" pretrain --out "$run" --resume
  else
    rm -rf "$run"
    "$mlomae" pretrain --preset micro --data "${data[$set]}" --threads 1 --set data.limit="${images[$set]}" \
      --set run.reconstruction_steps="${steps[$set]}" --out "$run" "$@"
  fi
}
# evaluate KIND RUN arguments…
evaluate() {
  local kind=$1 run=$2
  shift 2
  [ -e "$run/evaluation/${kind##*,}.json" ] || "$mlomae" evaluate "$kind" "$run" "$@"
}

main_of() {
  local set=$1 seed method
  for seed in $seeds; do
    for method in mae mlo-mae u-mae fixed blo-mae untrained; do
      local own=(--method "$method")
      # fixed: the paper's way of masking by a network that is never trained (at random, by rank).
      if [ "$method" = fixed ]; then own+=(--set masker.selection=rank --set masker.zero_output=false); fi
      if [ "$method" = untrained ]; then own=(--method mae --set run.reconstruction_steps=1); fi
      pretrain "$out/$set-$method-$seed" "$set" --seed "$seed" "${own[@]}"
      evaluate linear-probe,knn "$out/$set-$method-$seed"
    done
  done
}

finetune_of() {
  local set=$1 seed method
  for seed in $seeds; do
    for method in mae mlo-mae; do
      evaluate finetune "$out/$set-$method-$seed" --set evaluation.finetune_epochs="${epochs[$set]}"
    done
    evaluate scratch "$out/$set-mae-$seed" --set evaluation.finetune_epochs="${epochs[$set]}"
  done
}

# ablate SET METHOD setting…
ablate() {
  local set=$1 method=$2 setting
  shift 2
  for setting in "$@"; do
    pretrain "$out/ablation-$set-$method-$setting" "$set" --method "$method" --seed 0 --set "$setting"
    evaluate linear-probe,knn "$out/ablation-$set-$method-$setting"
  done
}

ablations() {
  local set=${sets[-1]}
  ablate "$set" mae pretrain.lr=5e-4 pretrain.lr=2e-3 masker.ratio=0.5 masker.ratio=0.9 model.patch=2 model.patch="${patch[$set]}" &
  local of_mae=$!
  ablate "$set" mlo-mae masker.lr=1e-4 masker.lr=1e-3 head.lr=1e-2 masker.selection=rank masker.weights=normalized masker.weights=straight-through \
    masker.input=coupled pretrain.best_response=betty pretrain.unroll=1 pretrain.unroll=5 masker.ratio=0.5 masker.ratio=0.9 model.patch=2 \
    model.patch="${patch[$set]}"
  wait "$of_mae"
}

# every STAGE: of all sets, side by side. A failure of one is the script's.
every() {
  local set jobs=()
  for set in "${sets[@]}"; do "$1" "$set" & jobs+=($!); done
  for job in "${jobs[@]}"; do wait "$job"; done
}

report() {
  local runs=() run
  for run in "$out"/*; do
    if [ -d "$run/evaluation" ]; then runs+=("$run"); fi
  done
  "$mlomae" report "${runs[@]}" -o "$out/report.html" --title "MLO-MAE: evidence" --json >"$out/table.json"
  say "$out/report.html, $out/table.json"
}

# What is cut off saves itself and is resumed next time.
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT
if [ $# -eq 0 ]; then set -- main ablations finetune report; fi
for stage in "$@"; do
  case $stage in
    main) every main_of ;;
    finetune) every finetune_of ;;
    ablations | report) "$stage" ;;
    *) say "unknown stage '$stage'; choose main, ablations, finetune or report" >&2; exit 2 ;;
  esac
done
