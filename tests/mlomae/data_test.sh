#!/usr/bin/env bash
# The program mlomae on people's folders: what it says of them, and where it finds them again.
#
# usage: data_test.sh MLOMAE
set -euo pipefail
mlomae=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
fail() { printf 'data_test: %s\n' "$*" >&2; failures=$((failures + 1)); }

one=iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAA00lEQVR4nAHIADf/AEQggjz95vHCazD5DsfdAeSIdTSiDwsNBAHDbthLAwjvBtB5+Tsem+qfVMIKS0Ek8bkA/8kR9XzO1Fi7vyzgN1PJvfoP8BadyVdWBHU9VQLJ4j4c2U7Zh2cW2jnAV93iGQu5qgGp6g7McE65KLT2qPjD3YeYgqnfJ1zFpb0E2Wx9IZIZ0AreDh2LyDibBWBJDaZ2ULTBAsi8x07yzOiA1b4FFW/B4OjhG7lKlCVICgCBQgQTb+tXE8FmsTJp3WP8NceX/wimzZAWXGJNO54kSwAAAABJRU5ErkJggg==
mkdir -p flat classes/left classes/right
for i in $(seq 12); do
  for to in flat classes/left classes/right; do base64 -d <<<"$one" >$to/$i.png; done
done
printf RIFF >classes/left/a.webp
tiny=(--preset micro --threads 1 --set model.dim=16 --set model.depth=1 --set model.heads=2 --set model.decoder_dim=8 --set model.decoder_depth=1 --set masker.hidden=8
  --set pretrain.batch=4 --set head.batch=4 --set masker.batch=2 --set augmentation.padding=1 --set run.reconstruction_steps=2)

# Images without labels: pretrained on, from whatever folder the run is looked at, and not judged without others.
"$mlomae" pretrain "${tiny[@]}" --data flat --method mae --out flat-run >/dev/null 2>error.txt || fail "a flat folder: $(cat error.txt)"
(cd / && "$mlomae" pretrain --out "$work/flat-run" --resume >/dev/null 2>"$work/error.txt") || fail "resumed from another folder: $(cat error.txt)"
status=0
"$mlomae" evaluate knn flat-run >/dev/null 2>error.txt || status=$?
[ $status = 2 ] && grep -q "has no labels" error.txt && grep -q -- "--data" error.txt || fail "judged without labels: $status $(cat error.txt)"
(cd classes && "$mlomae" evaluate knn ../flat-run --data . >/dev/null 2>../error.txt) || fail "judged by other images: $(cat error.txt)"

# What is not used is said once: on stderr, in the record, and in the result.
"$mlomae" pretrain "${tiny[@]}" --data classes --out run --json >result.json 2>notes.txt || fail "$(cat notes.txt)"
[ "$(grep -c "^note: .*passed over 1 .webp" notes.txt)" = 1 ] || fail "no note of the .webp file: $(cat notes.txt)"
grep -q '"notices":\[.*1 .webp' result.json || fail "$(cat result.json)"
grep -q '1 .webp' run/run.json || fail "$(cat run/run.json)"
(cd / && "$mlomae" evaluate knn "$work/run" >/dev/null 2>"$work/error.txt") || fail "evaluated from another folder: $(cat error.txt)"

# An unlabelled pool beside labelled images.
"$mlomae" pretrain "${tiny[@]}" --data classes --set data.unlabelled=flat --out pool --json >result.json 2>error.txt || fail "data.unlabelled: $(cat error.txt)"
grep -q '"pretrain": 12' pool/run.json || fail "$(cat pool/run.json)"

# Objects on a ground: made, the same again, and trained on.
mkdir objects && cp -r classes objects/train && cp -r classes objects/test && rm objects/*/left/a.webp
made=(--objects objects --ground stripes --size 16 --object 8 --train 8)
"$mlomae" make-data "${made[@]}" --out made >result.txt 2>error.txt || fail "make-data: $(cat error.txt)"
grep -q "^made: 8 training images and 24 test images of 16 × 16 .*--data made/images --set data.maps=made/maps" result.txt || fail "$(cat result.txt)"
"$mlomae" make-data "${made[@]}" --out again --json >result.json
diff -r made again || fail "the same call of make-data gave other bytes"
grep -q '"digest":"[0-9a-f]\{16\}"' result.json || fail "$(cat result.json)"
"$mlomae" pretrain "${tiny[@]}" --data made/images --method mae --out made-run >/dev/null 2>error.txt || fail "on a ground: $(cat error.txt)"

refused() { # refused WORDS arguments…
  local words=$1 status=0
  shift
  "$mlomae" "$@" >out.txt 2>error.txt || status=$?
  [ $status = 2 ] || fail "expected status 2 with '$words', got $status: $(tail -c 500 out.txt error.txt)"
  grep -q -- "$words" error.txt || fail "expected '$words' in: $(tail -c 500 error.txt)"
  [ ! -e bad ] || fail "a refused run left its directory"
}
refused "out = made; it must be a folder that is not there yet" make-data "${made[@]}" --out made
refused "must have a test part" make-data --objects classes --ground noise --out bad
refused "of which? Give --photographs FOLDER" make-data --objects objects --ground photographs --out bad
refused "learns from labels" pretrain "${tiny[@]}" --data flat --out bad
mkdir -p one/only && cp flat/*.png one/only
refused "one class only" pretrain "${tiny[@]}" --data one --out bad
refused "pretrain.accumulate" pretrain "${tiny[@]}" --data classes --set run.reconstruction_steps=0 --set run.epochs=2 --set pretrain.accumulate=1152921504606846976 --out bad
refused "pretrain.accumulate" pretrain "${tiny[@]}" --data classes --set run.reconstruction_steps=0 --set run.epochs=2 --set pretrain.accumulate=60000 --out bad
refused "model.depth" pretrain "${tiny[@]}" --data classes --set model.depth=1000000000 --out bad
mkdir "$(printf 'photos\377')"
cp -r classes/left classes/right "$(printf 'photos\377')"
refused "UTF-8" pretrain "${tiny[@]}" --data "$(printf 'photos\377')" --out bad
ln -s circle circle
refused "no such folder" pretrain "${tiny[@]}" --data circle --out bad
[ $failures = 0 ] || exit 1
echo "data_test: ok"
