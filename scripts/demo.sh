#!/usr/bin/env bash
# Sets up what is missing, builds the program mlomae, pastes pieces of clothing (Fashion-MNIST) at random places of noisy images, and trains
# a masked autoencoder on these twice: with every masked patch counting alike (MAE), and with what counts learned from a classifier's
# validation loss (MLO-MAE), for equal numbers of reconstruction steps. Judges both by a linear probe and nearest neighbours, and puts
# everything into one page, out/mlomae/report.html. Some minutes of training on two cores. Stopped and called again it goes on where it was.
#
# usage: scripts/demo.sh [settings of mlomae pretrain, for both runs: --seed 1, --set masker.ratio=0.5, …]
# environment: MLO_DEMO_OUT (out/mlomae)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

build release mlomae_program
mlomae=build/release/bin/mlomae
out=${MLO_DEMO_OUT:-out/mlomae}
data=$out/data
mkdir -p "$out"
if [ ! -e "$data/make-data.json" ]; then
  "$mlomae" make-data --objects /usr/share/datasets/fashion-mnist --ground noise --size 32 --object 16 --train 10000 --test 4000 --out "$data"
fi
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
    "$mlomae" pretrain --preset demo --method $method --data "$data" --set data.maps="$data" --out "$run" "$@"
  fi
  [ -e "$run/evaluation/knn.json" ] || "$mlomae" evaluate linear-probe,knn "$run"
done
"$mlomae" report "$out/mlo-mae" "$out/mae" -o "$out/report.html" --title "MLO-MAE and MAE: objects on noise"
say "open $out/report.html"
