#!/usr/bin/env bash
# A quarter of an hour on one GPU: trains cifar10-modern, saves its weights, measures it and draws from it, then holds
# the authors' numbers against this GPU and times the presets on it.
#
#   examples/gpu_quarter_hour.sh CIFAR10 FEATURES OUT [PART ...]
#
# CIFAR10 is a folder with the set's parquet files, FEATURES a TorchScript network for pictures of 32x32. The parts, in
# this order, and all by default: set training weights samples measures steps numerics presets rivals. Each has a time
# limit of its own and leaves its results and its log in OUT. Compiling takes up to a minute a part where the processor
# is slow. UPDATES is how long to train, in place of the preset's 15,000 (six minutes on an H200). REHEARSAL=1 goes
# through it with toys, on a CPU too.
set -uo pipefail
[ $# -ge 3 ] || { sed -n 2,12p "$0"; exit 2; }
cifar10=$(realpath "$1") features=$(realpath "$2") out=$(realpath -m "$3")
shift 3
parts=" ${*:-set training weights samples measures steps numerics presets rivals} "
cd "$(dirname "$0")/.." || exit 1
export PYTHONUNBUFFERED=1
rin="${PYTHON:-python3} -m rin.cli" bench="${PYTHON:-python3} -m benchmarks" full=--full num=10000 many=100 rivals_limit=240
options=(--data.path "$out/set") failed=()
[ -z "${UPDATES:-}" ] || options+=(--training.num-steps "$UPDATES")
if [ "${REHEARSAL:-}" ]; then
    full='' num=16 many=8 rivals_limit=900 # its small networks take minutes on a CPU
    options+=(--training.num-steps 4 --training.batch-size 8 --training.warmup-steps 2 --data.num-held-out 8
        --model.patch-size 8 --model.num-latents 16 --model.latent-dim 32 --model.interface-dim 32
        --model.compute-depth 1 --model.num-heads 2 --model.num-read-write-heads 2 --diffusion.num-steps 2)
fi
mkdir -p "$out/logs"

part() { # NAME SECONDS COMMAND...: runs it within so many seconds, if its part is among those asked for
    local name=$1 limit=$2 begun=$SECONDS
    shift 2
    [[ $parts == *" ${name%%-*} "* ]] || return 0
    if timeout -k 20 "$limit" "$@" >"$out/logs/$name.log" 2>&1; then
        echo "$name: $((SECONDS - begun)) s"
    else
        echo "$name: failed after $((SECONDS - begun)) s; the end of its log:"
        tail -n 12 "$out/logs/$name.log"
        failed+=("$name")
    fi
}

measure() { # NAME SECONDS [OPTION...]: measures samples of the run
    part "$1" "$2" $rin evaluate "$out/run" --features "$features" --num $num --out "$out/$1.json" "${@:3}"
}

part set 120 $rin prepare "$cifar10" "$out/set" --size 32
part training 500 $rin train cifar10-modern --out "$out/run" "${options[@]}"
part weights 60 "${PYTHON:-python3}" -c \
    "import rin, sys, torch; rin.load(sys.argv[1]).save(sys.argv[2], dtype=torch.float16)" "$out/run" "$out/model"
part samples 120 $rin sample "$out/run" --num $many --out "$out/samples.png"
measure measures 180 --keep-reference "$out/reference.npz" --average-decays 0.9995 0.999 0.9998
for way in "ddim 10" "ddim 25" "ddpm 100" "ddpm 400"; do
    measure "steps-${way/ /-}" 120 --reference "$out/reference.npz" --sampler "${way% *}" --num-steps "${way#* }"
done
measure steps-guidance 120 --reference "$out/reference.npz" --guidance 0.3
part numerics 180 $bench numerics $full --out "$out/results.jsonl"
part presets 240 $bench training_memory $full --out "$out/results.jsonl" \
    --presets cifar10-modern cifar10 imagenet-256 kinetics-600 imagenet-1024
part rivals $rivals_limit $bench other_rins figure_1 $full --out "$out/results.jsonl"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
