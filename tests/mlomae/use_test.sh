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

# Masks take folders as the others do; numbers that no machine holds are named as they were given.
"$mlomae" masks run photos -o pictures --data away >out.txt || fail "masks of a folder"
[ "$(wc -l <out.txt)" = 2 ] || fail "masks of a folder: $(cat out.txt)"
refused "run.seed = 1e+20; it must be a whole number" pretrain "${tiny[@]}" --out seeded --seed 99999999999999999999
refused "photos is no run" evaluate knn photos --data away

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

# What is not finite is no prediction: weights that are, and are too large for what they are multiplied with.
cp -r run large
offset=$(head -c 4000 large/evaluation/linear-probe.safetensors | grep -ao '"class.weights":{[^}]*"data_offsets":\[[0-9,]*' | sed 's/.*\[//')
header=$(od -An -t u8 -N 8 large/evaluation/linear-probe.safetensors | tr -d ' ')
head -c $((${offset#*,} - ${offset%,*})) /dev/zero | tr '\0' '\177' |
  dd of=large/evaluation/linear-probe.safetensors bs=1 seek=$((8 + header + ${offset%,*})) conv=notrunc 2>/dev/null
refused "linear-probe.safetensors: what this model makes of the images is not finite" predict large photos

# A report has the scores of the encoder that there is.
"$mlomae" evaluate knn run --data away >/dev/null
cp -r run later
"$mlomae" pretrain --out later --resume --data away --set run.reconstruction_steps=16 >/dev/null 2>&1
"$mlomae" report later --json -o r.html >out.txt 2>error.txt
grep -q "^note: later: the scores of knn are of an encoder that the run no longer has.*mlomae evaluate knn later" error.txt || fail "$(cat error.txt)"
grep -q '"scores":{}' out.txt || fail "$(cat out.txt)"
grep -q 'Note: later: the scores of linear-probe' r.html || fail "no note on the page"
"$mlomae" evaluate knn later >/dev/null
"$mlomae" report later --json -o r.html 2>/dev/null | grep -q '"knn class"' || fail "a score that was made anew is not shown"
"$mlomae" report run run ./run --json -o r.html >out.txt 2>error.txt
grep -q '"knn class":{"mean":[0-9.]*,"runs":1' out.txt || fail "a run counts as several: $(cat out.txt)"
[ "$(grep -c "^note: .*is the same run as run" error.txt)" = 2 ] || fail "$(cat error.txt)"

# A probe of what the encoder was before is not used.
"$mlomae" pretrain --out run --resume --data away --set run.reconstruction_steps=12 >/dev/null 2>&1
refused "of another encoder" predict run photos
echo "use_test: ok"
