#!/usr/bin/env bash
# What the program mlomae does with a run's encoder: features of images, their classes, and which are alike; without the run's images.
#
# usage: use_test.sh MLOMAE
set -euo pipefail
# shellcheck source=tests/mlomae/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"

"$mlomae" pretrain "${tiny[@]}" --method mae --set run.reconstruction_steps=8 --out run >/dev/null
refused "mlomae evaluate linear-probe run" predict run images
"$mlomae" evaluate linear-probe,finetune run >/dev/null
mkdir -p photos/deep && cp images/left/1.png photos/l.png && cp images/right/1.png photos/deep/r.png
mv images away

"$mlomae" embed run photos -o f.csv >out.txt
grep -q '2 images, 16 numbers each' out.txt || fail "$(cat out.txt)"
[ "$(head -1 f.csv | tr ',' '\n' | wc -l)" = 17 ] || fail "$(cat f.csv)"
[ "$(cut -d, -f1 f.csv | tr '\n' ' ')" = "image photos/deep/r.png photos/l.png " ] || fail "$(cat f.csv)"
"$mlomae" embed run photos/l.png photos/deep/r.png --feature mean --batch 1 -o f.npy >/dev/null
[ "$(stat -c %s f.npy)" = $((128 + 2 * 16 * 4)) ] || fail "f.npy has $(stat -c %s f.npy) bytes"
"$mlomae" embed run photos -o f.safetensors >/dev/null
grep -aq 'photos/deep/r.png' f.safetensors || fail "no names in f.safetensors"
refused ".safetensors, .npy or .csv" embed run photos -o f.txt
refused "no such file" embed run nowhere.png -o f.csv
mkdir empty
refused "no JPEG or PNG files" embed run empty -o f.csv

# The two classes are one image each: every probe tells them apart.
for by in linear-probe finetune; do
  "$mlomae" predict run photos --by $by --top 1 >out.txt
  [ "$(wc -l <out.txt)" = 2 ] || fail "predict --by $by: $(cat out.txt)"
done
"$mlomae" predict run photos --top 1 >out.txt
for line in '^photos/deep/r.png: right' '^photos/l.png: left'; do grep -q "$line" out.txt || fail "$(cat out.txt)"; done
"$mlomae" predict run photos/l.png --json | grep -q '"classes":\[{"name":"left","probability":' || fail "predict --json"
"$mlomae" nearest run photos --to away/left/2.png >out.txt
grep -q '^away/left/2.png: photos/l.png 1.000, photos/deep/r.png' out.txt || fail "$(cat out.txt)"

# A probe of what the encoder was before is not used.
"$mlomae" pretrain --out run --resume --data away --set run.reconstruction_steps=12 >/dev/null 2>&1
refused "of another encoder" predict run photos
echo "use_test: ok"
