#!/usr/bin/env bash
# The program mlomae from outside: a run on a folder of images with everything made of it, a run killed and resumed to the bit, bad input.
#
# usage: program_test.sh MLOMAE
set -euo pipefail
# shellcheck source=tests/mlomae/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"

# --- Everything once, by every method.
cp -r images maps # a map is any grey image beside its image
for method in mlo-mae mae u-mae sup-mae oracle blo-mae fixed; do
  "$mlomae" pretrain "${tiny[@]}" --method $method --set data.maps=maps --set run.reconstruction_steps=8 --out $method --json >$method.json
  grep -q '"reconstruction_steps":8' $method.json || fail "$method: $(cat $method.json)"
  for file in config.json run.json log.jsonl mae.safetensors encoder.safetensors checkpoint.mlo masks/00000000.mlo masks/00000008.mlo tensorboard; do
    [ -e $method/$file ] || fail "$method/$file is missing"
  done
done
for kind in linear-probe knn finetune scratch; do "$mlomae" evaluate $kind mlo-mae --json >$kind.json; done
grep -q '"kind":"scratch"' scratch.json || fail "$(cat scratch.json)"
"$mlomae" evaluate linear-probe,knn mlo-mae --json | sed 's/,"seconds":[^,]*//' >both.json
cat linear-probe.json knn.json | sed 's/,"seconds":[^,]*//' | cmp - both.json || fail "two evaluations at once differ from one by one: $(cat both.json)"
"$mlomae" evaluate knn mae >/dev/null
"$mlomae" report mlo-mae mae u-mae sup-mae oracle blo-mae fixed -o report.html >/dev/null
grep -q '</html>' report.html || fail "no report"
grep -q 'pretrain.found' mlo-mae/log.jsonl || fail "the masker was not held against the maps"
grep -q 'the map that T is judged by' report.html || fail "no maps in the report"
refused "data.maps is empty" pretrain "${tiny[@]}" --method oracle --out blind
"$mlomae" masks mlo-mae images/left/1.png -o pictures >/dev/null
[ -s pictures/1.masks.png ] || fail "no picture of the masks"
"$mlomae" export mlo-mae encoder.safetensors --encoder >/dev/null
cmp encoder.safetensors mlo-mae/encoder.safetensors || fail "the exported encoder is another"
"$mlomae" export mlo-mae all.safetensors >/dev/null
"$mlomae" import all.safetensors --out imported --data images --set data.test_fraction=0.25 --set model.image_size=8 --set pretrain.batch=8 >/dev/null
"$mlomae" evaluate knn imported --json | sed 's/.*"accuracy":\([^,]*\).*/\1/' >imported.txt
"$mlomae" evaluate knn mlo-mae --json | sed 's/.*"accuracy":\([^,]*\).*/\1/' >original.txt
cmp imported.txt original.txt || fail "an imported model is judged otherwise than the original"
"$mlomae" config --preset reference >settings.json
"$mlomae" pretrain "${tiny[@]}" --config settings.json --dry-run --set data.path=images --set run.epochs=1 --set model.image_size=8 --set model.dim=16 --set model.depth=1 \
  --set model.heads=2 --set model.decoder_dim=8 --set model.decoder_depth=1 --set model.size=micro --set model.patch=4 --set pretrain.batch=8 --set head.batch=8 --set masker.batch=4 \
  --set augmentation.padding=1 >dry.txt
grep -q masker dry.txt || fail "$(cat dry.txt)"

# --- Killed in the middle, and resumed: the same bits as a run that was left alone.
long=(--set run.reconstruction_steps=400 --set run.validate_every=400 --set run.snapshot_every=400 --set run.log_every=4)
"$mlomae" pretrain "${tiny[@]}" "${long[@]}" --out whole >/dev/null
"$mlomae" pretrain "${tiny[@]}" "${long[@]}" --out killed >/dev/null 2>&1 &
process=$!
wait_for killed/checkpoint.mlo
sleep 0.2
kill -KILL $process 2>/dev/null || fail "the run was over before it could be killed"
wait $process 2>/dev/null || true
[ ! -e killed/mae.safetensors ] || fail "the killed run had ended"
if "$mlomae" evaluate knn killed 2>error.txt; then fail "a run that was cut off was evaluated"; fi
grep -q -- '--resume' error.txt || fail "$(cat error.txt)"
"$mlomae" pretrain --out killed --resume >/dev/null
for file in checkpoint.mlo mae.safetensors masker.safetensors head.safetensors; do
  cmp whole/$file killed/$file || fail "$file of the resumed run differs"
done
# Its time is that of both parts: of the killed one to the step that was saved, by the log.
sed -n 's/.*"event":"\(start\|step\)".*"step":\([0-9]*\).*/\1 \2 &/p' killed/log.jsonl | sed 's/{.*"seconds":\([0-9.e-]*\).*/\1/; s/{.*//' >times.txt
awk -v all="$(sed -n 's/.*"seconds": \([0-9.]*\).*/\1/p' killed/run.json)" '
  $1 == "start" { starts++; from = $2; next }
  { time[starts, $2] = last = $3 }
  END {
    while (from > 0 && !((1, from) in time)) from--
    exit !(starts == 2 && from > 0 && all > time[1, from] + last && all < time[1, from] + last + 5)
  }' times.txt ||
  fail "seconds of a killed and resumed run: $(grep seconds killed/run.json) $(cat times.txt)"
"$mlomae" pretrain "${tiny[@]}" "${long[@]}" --seed 1 --out other >/dev/null
if cmp -s whole/mae.safetensors other/mae.safetensors; then fail "another seed gave the same weights"; fi

# --- Interrupted: saved, and said so.
"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=40000 --set run.validate_every=40000 --out stopped >/dev/null 2>stopped.txt &
process=$!
wait_for stopped/checkpoint.mlo
kill -INT $process
status=0
wait $process || status=$?
[ $status = 3 ] || fail "an interrupted run ended with $status: $(cat stopped.txt)"
grep -q -- '--resume' stopped.txt || fail "$(cat stopped.txt)"

# --- Bad input: status 2, and the words that help; no directory is left behind.
refused "the nearest is 'model.patch'" pretrain "${tiny[@]}" --set model.pacth=2 --out bad
refused "no such folder" pretrain --data nowhere --out bad
refused "masker.ratio" pretrain "${tiny[@]}" --set masker.ratio=1 --out bad
refused "at least one must stay visible" pretrain "${tiny[@]}" --set masker.ratio=0.99 --out bad
refused "the patch must divide the image" pretrain "${tiny[@]}" --set model.patch=3 --out bad
refused "holds a run already" pretrain "${tiny[@]}" --out mae
refused "no multiple of pretrain.unroll" pretrain "${tiny[@]}" --set run.reconstruction_steps=7 --out bad
refused "only" pretrain "${tiny[@]}" --set masker.batch=400 --out bad
refused "no CUDA device\|it must be cpu" pretrain "${tiny[@]}" --device cuda:7 --out bad
refused "x not in" evaluate knn,x mae
refused "there is no preset" config --preset huge
for i in $(seq 12); do printf 'not an image' >images/left/broken$i.jpg; done
refused "broken.*\.jpg" pretrain "${tiny[@]}" --set run.reconstruction_steps=8 --out bad
"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=8 --set data.on_bad_image=skip --out skipped/ >/dev/null 2>warning.txt
grep -q "left out.*broken1.jpg" warning.txt || fail "$(cat warning.txt)"
grep -q '"name": "skipped"' skipped/run.json || fail "a slash took the run's name: $(grep name skipped/run.json)"
rm -rf images/left/broken* bad  # a run may meet such an image late
mkdir images/empty
refused "empty" pretrain "${tiny[@]}" --out bad
[ ! -e bad ] || fail "a refused run left its directory"
echo "program_test: ok"
