#!/usr/bin/env bash
# Scores with several processes on this machine, or on NNODES machines: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py].
# The scores are those of one process, to the last digit where OMP_NUM_THREADS is the same.
# Without CUDA, GPUS is the number of processes (gloo). Settings (environment): NNODES NODE_RANK MASTER_ADDR PORT PYTHON.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
  exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3

# The number of threads decides the last digits. torch gives each of several processes one; on a CPU they get what one
# process has, so that the results are the same.
command -v nvidia-smi >/dev/null || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" \
  --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" \
  --master_port="${PORT:-29500}" \
  --nproc_per_node="$GPUS" \
  "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
