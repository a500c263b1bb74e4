#!/usr/bin/env bash
# Sets up what is missing, builds the reweighting example and runs it on Fashion-MNIST with 40 % of the labels flipped: it learns
# a weight for every training image. Its picture of the learned weights lands in out/reweight/.
#
# usage: scripts/demo.sh [arguments of the program reweight; --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/build.sh

build release reweight
mkdir -p out/reweight
say "running reweight; its output goes to out/reweight/"
exec build/release/examples/reweight/reweight --out out/reweight "$@"
