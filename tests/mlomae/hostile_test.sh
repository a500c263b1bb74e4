#!/usr/bin/env bash
# The program mlomae with input, streams and files that are not as they should be: status 2 and a sentence, or right. Never a signal, and no
# text of a library.
#
# usage: hostile_test.sh MLOMAE
set -euo pipefail
# shellcheck source=tests/mlomae/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"

"$mlomae" pretrain "${tiny[@]}" --method mae --set run.reconstruction_steps=4 --out run >/dev/null
nested() { printf '%*s' 100000 '' | tr ' ' "$1"; }

# --- JSON that is nested without end, and JSON of the wrong types.
printf '{"run": %s%s}' "$(nested '[')" "$(nested ']')" >deep.json
refused "deep.json: nested deeper than 64" config --config deep.json
refused "nested deeper than 64" config --set "run.seed=$(printf '%*s' 60000 '' | tr ' ' '[')$(printf '%*s' 60000 '' | tr ' ' ']')"
cp -r run deep && cp deep.json deep/run.json
refused "deep/run.json: nested deeper than 64" report deep
for bad in '"steps": "4"' '"name": 3' '"seconds": []' '"versions": 1' '"threads": -1'; do
  printf '{"method": "mae", %s}' "$bad" >deep/run.json
  refused "deep/run.json: $(cut -d'"' -f2 <<<"$bad") = .*expected" report deep
done
cp run/run.json deep/run.json
printf '{"event":"step","step":1}\n{"event":"st\n{"event":7,"step":1}\n' >deep/log.jsonl
refused "deep/log.jsonl, line 3: event is no text; remove the line" report deep
printf '{"event":"step","step":%s1%s}\n' "$(nested '[')" "$(nested ']')" >deep/log.jsonl
refused "deep/log.jsonl, line 1: nested deeper" report deep
refused "run is a folder" config --config run
refused "not JSON" config --config images/left/1.png

# --- What is there twice, what is no part of an explained setting, and numbers of 900,000 digits.
echo '{"pretrain": {"lr": 0.1, "lr": 0.2}}' >twice.json
refused "twice.json: 'lr' is there twice" config --config twice.json
echo '{"model": {"patch": {"value": 2, "bad": 1}}}' >more.json
refused "more.json: model.patch holds 'bad'" config --config more.json
printf '{"pretrain": {"lr": %s}}' "$(printf '%900000s' '' | tr ' ' 1)" >long.json
refused "long.json" config --config long.json
[ "$(wc -c <error.txt)" -lt 600 ] || fail "a message of $(wc -c <error.txt) bytes"
refused "900\|111" evaluate "$(printf '%90000s' '' | tr ' ' 1)" run
[ "$(wc -c <error.txt)" -lt 600 ] || fail "a message of $(wc -c <error.txt) bytes"

# --- Numbers that float32 does not hold.
for value in 1e300 1e39 1e-300; do
  for key in finetune_lr finetune_layer_decay finetune_weight_decay temperature finetune_epochs finetune_dropout; do
    refused "evaluation.$key = " evaluate finetune run --set evaluation.$key=$value
  done
done
refused "not finite" evaluate finetune run --set evaluation.finetune_lr=1e37 --set evaluation.finetune_warmup=0 --set evaluation.finetune_epochs=0.01
[ ! -e run/evaluation/finetune.json ] || fail "a score of a model that diverged was kept"

# --- A last step that diverges: no run that has ended well, no weights, and the checkpoint as it was.
diverging=(--method mae --set pretrain.lr=1e38 --set pretrain.warmup=0 --set pretrain.schedule=constant)
refused "level 'pretrain' at step 1: parameter '.*lower the learning rate" pretrain "${tiny[@]}" "${diverging[@]}" --set run.reconstruction_steps=1 --out diverged
[ ! -e diverged/mae.safetensors ] && [ ! -e diverged/checkpoint.mlo ] || fail "what diverged was kept: $(ls diverged)"
cp -r run diverged-later
refused "not finite\|the loss is" pretrain --out diverged-later --resume "${diverging[@]:2}" --allow-changed pretrain.lr --allow-changed pretrain.warmup \
  --allow-changed pretrain.schedule --set run.reconstruction_steps=5
for file in checkpoint.mlo mae.safetensors; do cmp run/$file diverged-later/$file || fail "$file was replaced by what diverged"; done

# --- Pipes that nobody writes to.
mkfifo pipe.json
export -f refused fail
export mlomae
piped() { # piped FILE arguments…: at once, with FILE in the sentence
  local name=$1
  shift
  timeout 60 bash -c 'refused "$@"' _ "$name is not a file but a pipe" "$@" || fail "mlomae $* with a pipe $name"
}
piped pipe.json config --config pipe.json
for file in run.json config.json log.jsonl evaluation/knn.json; do
  rm -rf pipes && cp -r run pipes && mkdir -p pipes/evaluation && rm -f pipes/$file && mkfifo pipes/$file
  piped pipes/$file report pipes
done
rm -rf pipes && cp -r run pipes && rm -f pipes/config.json && mkfifo pipes/config.json
piped pipes/config.json evaluate knn pipes
rm -rf pipes && cp -r run pipes && rm -f pipes/run.json pipes/log.jsonl && mkfifo pipes/log.jsonl
piped pipes/log.jsonl pretrain --out pipes --resume --set run.reconstruction_steps=8

# --- A working folder that has been removed.
status=0
mkdir gone
(cd gone && rmdir ../gone && "$mlomae" --version >../out.txt 2>../error.txt) || status=$?
[ $status = 2 ] || fail "in a folder that is gone: status $status: $(cat out.txt error.txt)"
grep -q "the folder that it was called in has been removed" error.txt || fail "$(cat error.txt)"
[ "$(wc -l <error.txt)" = 1 ] || fail "more than a line: $(cat error.txt)"

# --- A full disk, and a file that may not grow: status 2, what was there is untouched.
cp -r run full
echo before >r.html
for call in 'report run -o r.html' 'pretrain --out full --resume --set run.reconstruction_steps=8'; do
  status=0
  (ulimit -f 4 && eval "\"\$mlomae\" $call" >out.txt 2>error.txt) || status=$?
  [ $status = 2 ] || fail "mlomae $call with a full disk ended with $status: $(cat error.txt)"
  grep -q "File too large.*untouched\|File too large.*make room" error.txt || fail "mlomae $call: $(cat error.txt)"
done
grep -qx before r.html || fail "the page was replaced"
cmp run/checkpoint.mlo full/checkpoint.mlo || fail "the checkpoint was replaced"

# --- Standard streams that are gone.
words=("could not be written")
for stream in '/dev/full' '&-'; do
  for command in 'config' 'config --plain' '--help' '--version' 'report run --json -o r.html' 'evaluate knn run' 'evaluate knn run --json'; do
    status=0
    eval "\"\$mlomae\" $command >$stream" 2>error.txt || status=$?
    [ $status = 1 ] || fail "mlomae $command >$stream ended with $status: $(cat error.txt)"
    grep -q "${words[0]}" error.txt || fail "mlomae $command >$stream: $(cat error.txt)"
  done
done
printf 'not an image' >images/left/broken.jpg
status=0
"$mlomae" pretrain "${tiny[@]}" --set data.on_bad_image=skip --set run.reconstruction_steps=4 --out piped >out.txt 2> >(exec true) || status=$?
[ $status = 0 ] || fail "a run that warned with nobody at the other end of stderr ended with $status"
"$mlomae" pretrain "${tiny[@]}" --set data.on_bad_image=skip --set run.reconstruction_steps=4 --out closed >out.txt 2>&- || fail "stderr was closed: $?"
rm images/left/broken.jpg
# What is opened first does not take a closed stream's place: the log is a log.
"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=4 --out shut >&- 2>&- <&- && fail "a closed stdout was not noticed"
grep -v '^{"event"' shut/log.jsonl && fail "something else was written into the log"

# --- A result that cannot be kept is printed all the same.
cp -r run kept && rm -rf kept/evaluation && touch kept/evaluation
status=0
"$mlomae" evaluate knn kept >out.txt 2>error.txt || status=$?
[ $status = 2 ] || fail "expected status 2, got $status: $(cat error.txt)"
grep -q 'class token: [0-9.]* %' out.txt || fail "the result was lost: $(cat out.txt error.txt)"
grep -q 'kept/evaluation: Not a directory\|kept/evaluation: File exists' error.txt || fail "$(cat error.txt)"

# --- Two images of one name are two pictures.
"$mlomae" masks run images/left/1.png images/right/1.png images/left/2.png -o pictures >out.txt
for name in images_left_1.png images_right_1.png 2; do
  [ -s pictures/$name.masks.png ] || fail "no $name.masks.png: $(ls pictures)"
done
cmp -s pictures/images_left_1.png.masks.png pictures/images_right_1.png.masks.png && fail "two images gave one picture"
refused "would both be written to" masks run images/left/1.png images/left/../left/1.png -o pictures

# --- Names that are not UTF-8.
odd=$'odd\xff'
"$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=4 --out "$odd" --json >out.txt || fail "a run whose name is not UTF-8"
"$mlomae" pretrain --out "$odd" --resume >/dev/null || fail "a run whose name is not UTF-8 was not gone on with"
"$mlomae" evaluate knn "$odd" --json >/dev/null || fail "evaluate: a run whose name is not UTF-8"
"$mlomae" report "$odd" --json -o r.html >/dev/null || fail "report: a run whose name is not UTF-8"
ln -s images "$work/data$odd"
refused "it must be UTF-8" pretrain "${tiny[@]}" --set "data.path=data$odd" --out bad
refused "it must be one of" pretrain "${tiny[@]}" --set "run.method=$odd" --out bad
[ ! -e bad ] || fail "a refused run left its directory"

# --- A refused run takes nothing away that it has not made.
mkdir real && ln -s real link
refused "at least one must stay visible" pretrain "${tiny[@]}" --set masker.ratio=0.99 --out link
if [ ! -L link ] || [ ! -d real ]; then fail "a refused run removed the link that it was given"; fi

# --- What the system says, with the path.
ln -s loop loop
refused "loop.*symbolic links" pretrain "${tiny[@]}" --out loop/run
refused "loop: Too many levels of symbolic links\|loop: no such folder" pretrain "${tiny[@]}" --set data.path=loop --out bad
refused "images/left/1.png" evaluate knn images/left/1.png

# --- No memory: status 1, one line.
if (ulimit -v 6000000 && "$mlomae" --version) >/dev/null 2>&1; then
  status=0
  (ulimit -v 6000000 && "$mlomae" pretrain "${tiny[@]}" --set model.dim=40000 --out bad >out.txt 2>error.txt) || status=$?
  # Refused, or the machine has more than this process may take.
  [ $status = 1 ] || [ $status = 2 ] || fail "a model without memory ended with $status: $(cat error.txt)"
  grep -q "memory" error.txt || fail "$(cat error.txt)"
  [ "$(wc -l <error.txt)" = 1 ] || fail "more than a line: $(cat error.txt)"
else
  echo "hostile_test: the case of no memory is left out: this build does not start within 6 GB of addresses (a sanitizer's)"
fi
refused "depth = 1000000000" pretrain "${tiny[@]}" --set model.depth=1000000000 --out bad

# --- Threads wait passively, unless the user has chosen.
for policy in passive active; do
  (
    unset OMP_NUM_THREADS
    if [ $policy = active ]; then export OMP_WAIT_POLICY=active; fi
    exec "$mlomae" pretrain "${tiny[@]}" --set run.reconstruction_steps=40000 --set run.validate_every=40000 --out $policy >/dev/null 2>&1
  ) &
  process=$!
  wait_for $policy/checkpoint.mlo
  tr '\0' '\n' </proc/$process/environ >environ.txt
  kill -KILL $process
  wait $process 2>/dev/null || true
  grep -qx "OMP_WAIT_POLICY=$policy" environ.txt || fail "threads do not wait as they should ($policy): $(grep OMP environ.txt)"
done

# --- Words that are not known.
refused "there is no command 'pretain'; did you mean 'pretrain'" pretain --out run
refused "did you mean '--resume'" pretrain --resum --out run
refused "give a command: 'pretrain', 'evaluate'" 2>/dev/null
"$mlomae" --help | grep -q 'mlomae pretrain --preset' || fail "help without an example"
echo "hostile_test: ok"
