#!/usr/bin/env bash
# Trains with several processes on this machine, or on NNODES machines: dist_train.sh CONFIG GPUS [arguments of train.py].
# Without CUDA, GPUS is the number of processes (gloo). Settings (environment): NNODES NODE_RANK MASTER_ADDR PORT PYTHON.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
  exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
CONFIG=$1
GPUS=$2
shift 2

# The number of threads decides the last digits. torch gives each of several processes one; on a CPU they get what one
# process has, so that the results are the same.
command -v nvidia-smi >/dev/null || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" \
  --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" \
  --master_port="${PORT:-29500}" \
  --nproc_per_node="$GPUS" \
  "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
