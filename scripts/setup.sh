#!/usr/bin/env bash
# Installs what the build needs: the packages of Debian 12 or Ubuntu 24.04 that are missing, and LibTorch (the PyPI wheel
# of PyTorch) into .deps/. Safe to run again: what is already there is left alone.
#
# usage: scripts/setup.sh [--tests | --lint]
#   --tests   also what the tests read files back with (tensorboard, safetensors) into .deps/tests; without it those tests skip
#   --lint    what scripts/lint.sh needs, and no more
# environment:
#   MLO_CUDA=AUTO|ON|OFF               install what the CUDA half of LibTorch loads; AUTO: if a driver of NVIDIA's is here (no
#                                      toolkit is needed)
#   CMAKE_PREFIX_PATH, Torch_DIR, Torch_ROOT   where one of them holds a LibTorch, that one is used and nothing is downloaded
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch_version=2.11.0
venv=.deps/venv

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$@" >&2; exit 1; }

if [ "${1:-}" = --tests ]; then
  scripts/setup.sh
  packages=(tensorboard==2.21.0 safetensors==0.8.0 numpy==2.4.6 setuptools==80.9.0)
  tests=.deps/tests
  if [ "$(cat "$tests/stamp" 2>/dev/null)" = "${packages[*]}" ]; then exit 0; fi
  say "installing ${packages[*]} into $tests for the tests"
  rm -rf "$tests"
  mkdir -p .deps
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if python3 -m venv "$tests" >"$log" 2>&1 &&
     "$tests/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile "${packages[@]}" >"$log" 2>&1; then
    printf '%s\n' "${packages[*]}" >"$tests/stamp"
  else
    tail -n 5 "$log" >&2
    say "could not (its last lines are above): the tests that need them will skip"
  fi
  exit 0
fi

# --- Packages --------------------------------------------------------------------------------------------------------------------

has_command() { command -v "$1" >/dev/null 2>&1; }
has_file() { for candidate in "$@"; do [ -e "$candidate" ] && return 0; done; return 1; }

# The python that makes the virtual environment: the first whose version the wheel supports and that can make one.
python=
python_seen=
find_python() {
  python_seen=
  for candidate in python3 /usr/bin/python3; do
    local version
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
      3.1[0-4]) ;;
      *) python_seen+=" $candidate is $version (the wheel needs 3.10 to 3.14);"; continue ;;
    esac
    if ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      python_seen+=" $candidate cannot make virtual environments (no ensurepip);"
      continue
    fi
    python=$candidate
    return 0
  done
  return 1
}

lint=$([ "${1:-}" = --lint ] && echo yes || true)
missing=()
need() { # need PACKAGE CHECK...: notes the package unless the check holds
  local package=$1
  shift
  "$@" || missing+=("$package")
}
list_missing() {
  missing=()
  if [ -n "$lint" ]; then
    need clang-format-14 has_command clang-format-14
    need shellcheck has_command shellcheck
    need git has_command git
    return
  fi
  need cmake has_command cmake
  need g++ has_command "${CXX:-g++}"
  need ninja-build has_command ninja
  need ccache has_command ccache
  need git has_command git
  need binutils has_command nm
  need python3-venv find_python
  need libeigen3-dev has_file /usr/include/eigen3/Eigen/Core
  need catch2 has_file /usr/include/catch2/catch.hpp /usr/include/catch2/catch_all.hpp
  need libfmt-dev has_file /usr/include/fmt/core.h
  need nlohmann-json3-dev has_file /usr/include/nlohmann/json.hpp
  need zlib1g-dev has_file /usr/include/zlib.h
  need libjpeg-dev has_file /usr/include/jpeglib.h
  need libpng-dev has_file /usr/include/png.h
  need libcli11-dev has_file /usr/include/CLI/CLI.hpp
  need dataset-fashion-mnist has_file /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
}

list_missing
if [ ${#missing[@]} -gt 0 ]; then
  if [ -z "$python" ] && [ -n "$python_seen" ]; then say "no usable python3:$python_seen"; fi
  install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if ! has_command apt-get; then
    stop "these Debian packages are missing, and there is no apt-get here: ${missing[*]}" \
         "install what they hold with the package manager of this system, then run this again"
  fi
  if [ "$(id -u)" = 0 ]; then
    as_root=()
  elif has_command sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo)
  else
    stop "missing packages: ${missing[*]}" \
         "not root, and sudo is not usable here; let somebody who is root run this, then run it again:" \
         "  $install"
  fi
  say "installing packages: ${missing[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  if ! "${as_root[@]}" apt-get update >"$log" 2>&1 ||
     ! "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    stop "apt-get failed (its last lines are above); once it works, run this again or install by hand:" "  $install"
  fi
  list_missing
  if [ ${#missing[@]} -gt 0 ]; then
    stop "installed, but still not found: ${missing[*]}${python_seen:+ (python:$python_seen)}"
  fi
fi

if [ -n "$lint" ]; then exit 0; fi

# --- LibTorch --------------------------------------------------------------------------------------------------------------------

given_torch() { # prints the LibTorch that the caller's environment names, as cmake/FindMloTorch.cmake looks for it
  local roots root folder
  IFS=':;' read -ra roots <<<"${Torch_DIR:+$Torch_DIR/../../..:$Torch_DIR:}${Torch_ROOT:-}:${CMAKE_PREFIX_PATH:-}"
  for root in "${roots[@]}"; do
    [ -n "$root" ] || continue
    for folder in "$root" "$root"/torch "$root"/lib/python3*/site-packages/torch; do
      if has_file "$folder"/lib/libtorch_cpu.*; then printf '%s\n' "$folder"; return 0; fi
    done
  done
  return 1
}

if torch=$(given_torch); then
  say "using the LibTorch given in $torch; nothing to download"
  exit 0
fi

has_driver() {
  has_command nvidia-smi || has_file /dev/nvidia0 /usr/lib/wsl/lib/libcuda.so.1 ||
    { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep -q 'libcuda\.so\.1 '
}

flavour=cpu
why=
case ${MLO_CUDA:-AUTO} in
  OFF|off|0) why="MLO_CUDA=OFF" ;;
  ON|on|1) flavour=cuda ;;
  AUTO|auto) if has_driver; then flavour=cuda; else why="no driver of NVIDIA's"; fi ;;
  *) stop "MLO_CUDA is '${MLO_CUDA}'; it must be AUTO, ON or OFF" ;;
esac

# The stamp names what is installed; the CUDA flavour also serves a CPU build.
stamp=$venv/mlo-libtorch
installed=$(cat "$stamp" 2>/dev/null || true)
case $installed in
  "torch $torch_version $flavour"|"torch $torch_version cuda")
    if has_file "$venv"/lib/python3*/site-packages/torch/lib/libtorch_cpu.so; then
      say "packages and LibTorch $torch_version (${installed##* }) are in place"
      exit 0
    fi ;;
esac

if [ "$flavour" = cuda ]; then
  say "installing LibTorch $torch_version with what its CUDA half loads into $venv (3.8 GB; about a minute)"
else
  say "installing LibTorch $torch_version for the CPU ($why) into $venv (1.2 GB)"
fi
rm -f "$stamp"
if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
  mkdir -p .deps
  rm -rf "$venv"
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    stop "$python -m venv failed; on Debian and Ubuntu the cure is: apt-get install python3-venv"
  fi
fi
# pip complains of the Python packages that torch would import; only C++ is used here, so its words matter only if it fails.
pip_install() {
  local words
  if ! words=$("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile "$@" 2>&1); then
    printf '%s\n' "$words" | tail -n 20 >&2
    stop "pip could not install: $* (its last lines are above)" \
         "without a network, give a LibTorch $torch_version of your own: CMAKE_PREFIX_PATH=<its directory>"
  fi
}
pip_install --no-deps "torch==$torch_version"
# The wheel's own metadata pins the libraries that it loads. libtorch_cpu and libc10 load the CUDA runtime and CUPTI only.
mapfile -t libraries < <("$venv/bin/python" - "$flavour" <<'PYTHON'
import importlib.metadata, re, sys
for requirement in importlib.metadata.requires("torch"):
    requirement = requirement.split(";")[0].strip()
    if requirement.startswith("cuda-toolkit"):
        print(requirement if sys.argv[1] == "cuda" else re.sub(r"\[.*\]", "[cudart,cupti]", requirement))
    elif requirement.startswith("nvidia-") and sys.argv[1] == "cuda":
        print(requirement)
PYTHON
)
if [ ${#libraries[@]} -gt 0 ]; then pip_install "${libraries[@]}"; fi
printf 'torch %s %s\n' "$torch_version" "$flavour" >"$stamp"
say "LibTorch $torch_version ($flavour) is installed"
