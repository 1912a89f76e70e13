#!/bin/sh
# One machine with several GPUs: one process a GPU, the same command resumes.
#
#   sh examples/one_node.sh PRESET OUT [options of rin train]
#
# torchrun passes SIGTERM on to the processes; they save and leave, for which --shutdown-timeout gives them time.
set -eu
preset=$1 out=$2
shift 2
exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --shutdown-timeout 300 \
    -m rin.cli train "$preset" --out "$out" "$@"
