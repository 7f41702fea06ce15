#!/usr/bin/env bash
# Sets up .venv for CPU use: build tools, torch, mmcv with compiled ops, the rest, the project itself.
# Every step is skipped when it is done already, and can be interrupted and run again: compiled objects are kept.
# Settings (environment): PYTHON, VENV, WHEEL_DIR, TORCH_VERSION, MAX_JOBS, FORCE_CUDA=1 (compile mmcv's CUDA ops).
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}
WHEEL_DIR=${WHEEL_DIR:-.wheels}
TORCH_VERSION=${TORCH_VERSION:-2.13.0}
MMCV_VERSION=$(sed -n 's/^mmcv==//p' requirements/mmcv.txt)
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1
STAMP="$VENV/.memfusion_installed"
WANTED=$({ cat requirements.txt requirements/*.txt tools/setup_env.sh; echo "$PYTHON $TORCH_VERSION ${FORCE_CUDA:-}"; } \
  | sha256sum | cut -d' ' -f1)

say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*"; }
pip() { "$VENV/bin/python" -m pip "$@"; }
quiet() {  # runs a command, shows its output only when it fails
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    say "failed: $*" >&2
    exit 1
  fi
  rm -f "$log"
}

if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$WANTED" ] \
  && "$VENV/bin/python" -I -c 'import projects.memfusion' 2>/dev/null; then
  exit 0
fi
rm -f "$STAMP"
# Two set-ups in one folder would spoil each other's build.
exec 9>.setup.lock
flock -n 9 || { say "another set-up is running in this folder: waiting for it"; flock 9; }

"$PYTHON" tools/check_env.py --system

VERSION_OF='import sys; print(sys.version_info[:2])'
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 \
  || [ "$("$VENV/bin/python" -c "$VERSION_OF")" != "$("$PYTHON" -c "$VERSION_OF")" ]; then
  say "creating $VENV"
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV"
fi

say "build tools and torch $TORCH_VERSION (about half a minute with a fast network)"
quiet pip install -r requirements/build.txt
quiet pip install -c requirements/build.txt "torch==$TORCH_VERSION"

# mmcv decides by itself whether to compile CUDA ops: by a visible GPU or FORCE_CUDA. Without nvcc that would fail.
OPS=cuda
if ! command -v nvcc >/dev/null || { [ "${FORCE_CUDA:-0}" != 1 ] \
  && ! "$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; }; then
  OPS=cpu
fi
# A wheel belongs to one torch, one Python and one kind of ops; pip's own cache knows none of them.
TAG=$("$VENV/bin/python" -c 'import sys, torch; print(f"torch-{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}")')-$OPS
WHEELS="$WHEEL_DIR/$TAG"
if ! ls "$WHEELS"/mmcv-"$MMCV_VERSION"-*.whl >/dev/null 2>&1; then
  SOURCE="$WHEELS/mmcv-$MMCV_VERSION"
  if [ ! -f "$SOURCE/setup.py" ]; then
    mkdir -p "$WHEELS/download"
    quiet pip download --no-deps --no-build-isolation --no-binary mmcv -d "$WHEELS/download" "mmcv==$MMCV_VERSION"
    rm -rf "$WHEELS/unpack"
    mkdir "$WHEELS/unpack"
    tar -xzf "$WHEELS/download/mmcv-$MMCV_VERSION.tar.gz" -C "$WHEELS/unpack"
    mv "$WHEELS/unpack/mmcv-$MMCV_VERSION" "$SOURCE"
  fi
  say "compiling mmcv $MMCV_VERSION's ops with $MAX_JOBS jobs: about 7 minutes on 2 cores (an interrupted build goes on where it stopped)"
  (while sleep 60; do say "  still compiling mmcv: $(find "$SOURCE/build" -name '*.o' 2>/dev/null | wc -l) object files"; done) &
  TICKER=$!
  trap 'kill $TICKER 2>/dev/null || true' EXIT
  [ $OPS = cuda ] || export CUDA_VISIBLE_DEVICES=
  export MMCV_WITH_OPS=1 CFLAGS="${CFLAGS:--g0 -O1}" CXXFLAGS="${CXXFLAGS:--g0 -O1}"
  quiet pip wheel --no-cache-dir --no-deps --no-build-isolation -w "$WHEELS/unpack" "$SOURCE"
  mv "$WHEELS/unpack"/mmcv-"$MMCV_VERSION"-*.whl "$WHEELS/"
  kill $TICKER 2>/dev/null || true
  rm -rf "$SOURCE" "$WHEELS/unpack" "$WHEELS/download"
fi

say "mmcv, mmengine, mmdet, mmdet3d, nuscenes-devkit, spconv, transformers (about a minute)"
quiet pip install -c requirements/build.txt -r requirements/runtime.txt -r requirements/dev.txt -r requirements/spatial_mllm.txt \
  -r requirements/viewer.txt -r requirements/export.txt -r requirements/docs.txt
quiet pip install --no-deps --force-reinstall "$WHEELS"/mmcv-"$MMCV_VERSION"-*.whl
quiet pip install --no-deps --no-build-isolation -e .
quiet pip check

say "checking the installation"
quiet "$VENV/bin/python" -W ignore -c 'import mmcv.ops, mmdet3d.models, spconv.pytorch'
echo "$WANTED" >"$STAMP"
say "environment ready in $VENV"
