#!/usr/bin/env bash
# Everything that a GPU is worth borrowing for, in order of worth, within a time limit:
#
#     scripts/gpu_suite.sh MINUTES [FOLDER]
#
# 1. A LoRA step of ViT-B's encoder in bf16, batch 1, 4 and 8, against the reference's computation and the card's own
#    bf16 peak: FOLDER/encoder_step_*.json.
# 2. The runs of scripts/matrices/suite.yaml, each for BUDGET minutes (2) of the card: FOLDER/suite/*.json.
#
# Results are written as they come. What is there is not done again, and a run that was cut goes on from its last epoch:
# give the same command with the same FOLDER (results/gpu), and RUNS (runs/gpu) where the runs' own folders are to lie.
# TOY=1 tries it all on the processor at toy size, on generated images, in some minutes.
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: scripts/gpu_suite.sh MINUTES [FOLDER]}
out=${2:-results/gpu}
runs=${RUNS:-runs/gpu}
python=${PYTHON:-python}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
end=$((SECONDS + minutes * 60))
mkdir -p "$out" "$runs"

step=(--network_name vit_b --precision bf16 --device cuda)
batches=(1 4 8)
suite=(scripts/matrices/suite.yaml --budget_minutes "${BUDGET:-2}" --threads 4 --set num_workers=8)
if [ -n "${TOY:-}" ]; then
    step=(--network_name vit_b --precision bf16 --device cpu --image_size 128 --steps 1 --rounds 1)
    batches=(1)
    suite=(scripts/matrices/toy.yaml)
fi

for batch in "${batches[@]}"; do
    file=$out/encoder_step_vit_b_bf16_batch$batch.json
    left=$((end - SECONDS))
    if [ ! -f "$file" ] && [ $left -gt 0 ]; then
        timeout $left "$python" scripts/bench/encoder_step.py "${step[@]}" --batch_size "$batch" --json "$file" ||
            echo "encoder_step with batch $batch ended with status $?"
    fi
done

left=$((end - SECONDS))
if [ $left -gt 0 ]; then
    "$python" scripts/benchmark_matrix.py "${suite[@]}" --results "$out/suite" --output_dir "$runs" \
        --minutes "$(awk "BEGIN { print $left / 60 }")"
fi
