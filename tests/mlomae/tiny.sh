# shellcheck shell=bash disable=SC2034
# What the tests of the program mlomae share: sourced with the program as first argument. Makes a folder of images and a folder to work in,
# and says how the smallest of runs is called.
mlomae=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit
fail() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
refused() { # refused WORDS arguments…: status 2, and the words that help
  local words=$1 status=0
  shift
  "$mlomae" "$@" >out.txt 2>error.txt || status=$?
  [ $status = 2 ] || fail "expected status 2 with '$words', got $status: $(cat out.txt error.txt)"
  grep -q -- "$words" error.txt || fail "expected '$words' in: $(cat error.txt)"
}
wait_for() { # wait_for FILE
  for _ in $(seq 600); do
    if [ -e "$1" ]; then return; fi
    sleep 0.05
  done
  fail "$1 did not come"
}

# Two classes of small colour images, 24 each.
one=iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAA00lEQVR4nAHIADf/AEQggjz95vHCazD5DsfdAeSIdTSiDwsNBAHDbthLAwjvBtB5+Tsem+qfVMIKS0Ek8bkA/8kR9XzO1Fi7vyzgN1PJvfoP8BadyVdWBHU9VQLJ4j4c2U7Zh2cW2jnAV93iGQu5qgGp6g7McE65KLT2qPjD3YeYgqnfJ1zFpb0E2Wx9IZIZ0AreDh2LyDibBWBJDaZ2ULTBAsi8x07yzOiA1b4FFW/B4OjhG7lKlCVICgCBQgQTb+tXE8FmsTJp3WP8NceX/wimzZAWXGJNO54kSwAAAABJRU5ErkJggg==
two=iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAA00lEQVR4nAHIADf/AQlQZp71RzQo21ZVKMe2cRyzI0IqKTNVFQKzXUiTUMsf2K1zUiAtSiosg/Zr0gWg3jgBlzrq9v0tCs/wl80z5o1Aw/LBDwNAa99jBCpclzMLHHYB/d8yXZbhMcnmpoDWbhnehQIvIANpyWr73KQcipZCSOXU+331BXZpGw8BqzMv0j3b/10bDVcBguFurPdclze32SW0AUxIo1Du86QzstA4IUv4dPV/oTEIZltg/ADoBcqtV4T4DNUJH7VGQEaEjcvNWC13+AOxlltisgEJPAAAAABJRU5ErkJggg==
for i in $(seq 24); do
  mkdir -p images/left images/right
  base64 -d <<<"$one" >"images/left/$i.png"
  base64 -d <<<"$two" >"images/right/$i.png"
done
tiny=(--preset micro --data images --threads 1 --set model.image_size=8 --set model.dim=16 --set model.depth=2 --set model.heads=2 --set model.decoder_dim=8
  --set model.decoder_depth=1 --set model.patch=2 --set masker.hidden=16 --set pretrain.batch=8 --set head.batch=8 --set masker.batch=4 --set augmentation.padding=1
  --set data.test_fraction=0.25 --set run.checkpoint_every=4 --set model.dropout=0.1 --set evaluation.finetune_epochs=2 --set evaluation.finetune_batch=8)
