#!/usr/bin/env bash
# A resumed run of the program mlomae is the same run, or says what is not: settings, images, length, place; and only one process has it.
#
# usage: resume_test.sh MLOMAE
set -euo pipefail
# shellcheck source=tests/mlomae/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"
value() { sed -n "s/.*\"$2\": \"\?\([^\",]*\).*/\1/p" "$1" | head -1; } # value FILE KEY

"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=8 --out run >/dev/null
cp -r run first

# --- The call that began it, with --resume: nothing is different.
"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=8 --out run --resume >/dev/null 2>error.txt || fail "$(cat error.txt)"
if grep -v '^note: ' error.txt >&2; then fail "it found differences: $(cat error.txt)"; fi
[ "$(value first/run.json images_per_second)" = "$(value run/run.json images_per_second)" ] || fail "a finished run has lost its rate"

# --- Settings that decide what is trained: named, and taken only if they are allowed.
for change in 's/"lr": 0.001/"lr": 0.002/ pretrain.lr' 's/"ratio": 0.75/"ratio": 0.5/ masker.ratio' 's/"seed": 0,/"seed": 3,/ run.seed' \
  's/"tradeoff": 0.1/"tradeoff": 0.2/ baselines.tradeoff'; do
  rm -rf edited && cp -r first edited
  sed -i "${change% *}" edited/config.json
  cmp -s first/config.json edited/config.json && fail "nothing was edited by $change"
  refused "${change##* }: " pretrain --out edited --resume
  cmp first/checkpoint.mlo edited/checkpoint.mlo || fail "a refused run changed its checkpoint"
done
refused "masker.ratio: 0.75 → 0.5" pretrain --out first --resume --set masker.ratio=0.5 --set run.log_every=1
refused "--allow-changed masker.ratio" pretrain --out first --resume --set masker.ratio=0.5
refused "there is no setting 'masker.ration'; the nearest is 'masker.ratio'" pretrain --out first --resume --allow-changed masker.ration
mkdir old && printf '{"mask": {"ratio": 0.5}}' >old/config.json
refused "old/config.json: mask.ratio is masker.ratio now" pretrain --out old --resume
refused "needs --resume" pretrain "${tiny[@]}" --out bad --allow-changed masker.ratio
rm -rf edited && cp -r first edited
"$mlomae" pretrain --out edited --resume --set masker.ratio=0.5 --set pretrain.lr=0.002 --allow-changed masker.ratio --allow-changed pretrain.lr \
  --set run.reconstruction_steps=12 >/dev/null 2>error.txt || fail "$(cat error.txt)"
grep -q "going on with: masker.ratio: 0.75 → 0.5" error.txt || fail "$(cat error.txt)"
[ "$(value edited/config.json ratio)" = 0.5 ] || fail "config.json does not say what was done"
grep -q '"masker.ratio: 0.75 → 0.5"' edited/run.json || fail "run.json does not say what was changed"
"$mlomae" pretrain --out edited --resume >/dev/null 2>error.txt || fail "what was allowed once is no difference any more: $(cat error.txt)"

# --- Longer, and not shorter than it is.
cp -r first longer
"$mlomae" pretrain --out longer --resume --set run.reconstruction_steps=16 >/dev/null 2>error.txt || fail "$(cat error.txt)"
grep -q "run.reconstruction_steps: 8 → 16" error.txt || fail "$(cat error.txt)"
[ "$(value longer/run.json reconstruction_steps) $(value longer/run.json steps_taken)" = "16 8" ] || fail "run.json is stale: $(cat longer/run.json)"
[ "$(value longer/config.json reconstruction_steps)" = 16 ] || fail "config.json is stale"
"$mlomae" report longer -o r.html >/dev/null
refused "but 16 have been taken" pretrain --out longer --resume --set run.reconstruction_steps=12 --allow-changed run.reconstruction_steps
refused "was to be longer" pretrain --out longer --resume --set run.reconstruction_steps=12
# --- What would be written down and not done.
refused "no step would be taken with pretrain.lr = 0.5" pretrain --out longer --resume --set pretrain.lr=0.5 --allow-changed pretrain.lr

# --- Images that were moved, and images that were changed.
mkdir elsewhere && cp -r first elsewhere/run
(cd elsewhere && "$mlomae" pretrain --out run --resume >/dev/null && "$mlomae" evaluate knn run >/dev/null) || fail "from another folder"
mv images moved
refused "no such folder" pretrain --out run --resume
"$mlomae" pretrain --out run --resume --data moved >/dev/null 2>error.txt || fail "images that were moved: $(cat error.txt)"
[ "$(value run/config.json path)" = "$work/moved" ] || fail "the new place was not kept: $(value run/config.json path)"
refused "no such folder" masks first moved/left/1.png
"$mlomae" masks first moved/left/1.png -o pictures --data moved >/dev/null || fail "masks --data"
for file in moved/left/*.png; do cp moved/right/1.png "$file"; done
refused "not those that it was trained on" pretrain --out run --resume
"$mlomae" pretrain --out run --resume --allow-changed data.path >/dev/null 2>error.txt || fail "$(cat error.txt)"
rm -rf moved && cp -r "$work/first" lost
for i in $(seq 24); do mkdir -p images/left images/right; base64 -d <<<"$one" >"images/left/$i.png"; base64 -d <<<"$two" >"images/right/$i.png"; done

# --- Checkpoints and weights that are not those of a run to go on with.
head -c 3000 first/checkpoint.mlo >lost/checkpoint.mlo
refused "keeps its last checkpoint only" pretrain --out lost --resume
"$mlomae" export first all.safetensors >/dev/null
"$mlomae" import all.safetensors --out imported --data images --set data.test_fraction=0.25 --set model.image_size=8 >/dev/null
cp imported/mae.safetensors before.safetensors
refused "no checkpoint.mlo to go on from" pretrain --out imported --resume
cmp before.safetensors imported/mae.safetensors || fail "imported weights were trained over"

# --- A log that is damaged is said, and stops nothing.
cp -r first logged
printf '{"event":"step","step":"x"}\n{"event":"st' >>logged/log.jsonl
"$mlomae" pretrain --out logged --resume >/dev/null 2>error.txt || fail "a bad line of the log: $(cat error.txt)"
grep -q 'logged/log.jsonl, line .*step is no number' error.txt || fail "$(cat error.txt)"

# --- One process a run.
long=(--set run.reconstruction_steps=40000 --set run.validate_every=40000 --set run.snapshot_every=40000)
"$mlomae" pretrain "${tiny[@]}" "${long[@]}" --out shared >/dev/null 2>shared.txt &
process=$!
wait_for shared/checkpoint.mlo
refused "another process (process $process)" pretrain --out shared --resume
# --- A terminal that is closed saves.
kill -HUP $process
status=0
wait $process || status=$?
[ $status = 3 ] || fail "a run that was hung up on ended with $status: $(cat shared.txt)"
[ ! -e shared/lock ] || fail "the lock was left"
"$mlomae" pretrain --out shared --resume >/dev/null 2>&1 &
process=$!
for _ in $(seq 600); do if [ -e shared/lock ]; then break; fi; sleep 0.05; done
kill -KILL $process
wait $process 2>/dev/null || true
"$mlomae" pretrain --out shared --resume >/dev/null 2>shared.txt &
process=$!
for _ in $(seq 200); do if grep -qs "$process" shared/lock; then break; fi; sleep 0.05; done
kill -TERM $process
status=0
wait $process || status=$?
[ $status = 3 ] || [ $status = 143 ] || fail "after a killed process ($status): $(cat shared.txt)" # 143: it had not begun to train
(trap '' HUP; exec "$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=200 --out nohup >/dev/null 2>&1) &
process=$!
wait_for nohup/checkpoint.mlo
kill -HUP $process 2>/dev/null || true
wait $process || fail "nohup was not respected"
echo "resume_test: ok"
