#!/usr/bin/env bash
# Sets up what is missing, builds the program mlomae, and trains a masked autoencoder on Fashion-MNIST twice: with masks learned from a
# classifier's validation loss (MLO-MAE), and with random ones (MAE), for equal numbers of reconstruction steps. Judges both by a linear
# probe and nearest neighbours, and puts everything into one page, out/mlomae/report.html. Four to six minutes of training on two cores.
# Stopped and called again it goes on where it was.
#
# usage: scripts/demo.sh [settings of mlomae pretrain, for both runs: --seed 1, --set masker.ratio=0.5, …]
# environment: MLO_DEMO_OUT (out/mlomae)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

build release mlomae_program
mlomae=build/release/bin/mlomae
out=${MLO_DEMO_OUT:-out/mlomae}
data=/usr/share/datasets/fashion-mnist
mkdir -p "$out"
for method in mlo-mae mae; do
  run=$out/$method
  if grep -qs '"reason": "all steps taken"' "$run/run.json"; then
    say "$run is finished; remove it to train again"
  elif [ -e "$run/checkpoint.mlo" ]; then
    say "going on with $run"
    "$mlomae" pretrain --out "$run" --resume
  else
    say "training $run"
    rm -rf "$run"
    "$mlomae" pretrain --preset demo --method $method --data "$data" --out "$run" "$@"
  fi
  [ -e "$run/evaluation/knn.json" ] || "$mlomae" evaluate linear-probe,knn "$run"
done
"$mlomae" report "$out/mlo-mae" "$out/mae" -o "$out/report.html" --title "MLO-MAE and MAE on Fashion-MNIST"
say "open $out/report.html"
