#!/usr/bin/env bash
# One cell of the paper's study, trained and scored from LLaVA's data, beside the published score:
#   DATA=/data/llava BENCHMARKS=/data/benchmarks recipes/paper/reproduce.sh OUT [GPU]
#
# Qwen1.5-0.5B-Chat with 16 visual tokens: the mean of nine reasoning benchmarks is published as
# 0.4078 (vtc/catalog/published_measurements.csv). Tolerance 0.01: two standard errors, 0.0036 of
# the benchmarks' items and 0.0034 from run to run. About five hours of an RTX 4090.
#
# DATA holds LLaVA's two JSON files and their images (recipes/paper/Snakefile says how), BENCHMARKS
# TOML files of the nine: AI2D, ChartQA, GQA, MathVista, MMBench, MME, MMMU, POPE, ScienceQA.
set -euo pipefail
out=$1 gpu=${2:-rtx4090}
here=$(cd "$(dirname "$0")" && pwd)
llm=Qwen/Qwen1.5-0.5B-Chat tokens=16
recipe=$here/full.toml
mkdir -p "$out" && cd "$out"

vtc estimate "$recipe" --gpu "$gpu" --format csv >estimate.csv
vtc check-data "$DATA/blip_laion_cc_sbu_558k.json" --images "$DATA/pretrain" -o pretrain.parquet
vtc check-data "$DATA/llava_v1_5_mix665k.json" --images "$DATA/mix" -o mix.parquet
vtc train-projector pretrain.parquet --config "$recipe" --llm "$llm" --visual-tokens "$tokens" \
  --resume -o stage1
vtc finetune "stage1/tokenpacker-v$tokens" --samples mix.parquet --config "$recipe" --resume -o stage2
benchmarks=()
for file in "$BENCHMARKS"/*.toml; do benchmarks+=(--benchmark "$file"); done
vtc eval "stage2/Qwen1.5-0.5B-Chat-tokenpacker-v$tokens" "${benchmarks[@]}" -o predictions.parquet
vtc score predictions.parquet -o scores.csv
python "$here/compare.py" scores.csv --tolerance 0.01
