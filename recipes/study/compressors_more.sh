#!/usr/bin/env bash
# Behind compressors.sh, in its folder: one elastic run for all V, and compressors without training:
#   recipes/study/compressors_more.sh OUT [SEED...]
# It writes OUT/scores_more.parquet; LLM=mini-d takes another. Started again, it goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
settings=$here/compressors
out=$1
shift
seeds=("$@")
[ ${#seeds[@]} -gt 0 ] || seeds=(0 1)
llm=${LLM:-mini-b}
tokens=1,4,16,36
rate=$(python -c 'import sys, tomllib
print(tomllib.load(open(sys.argv[1], "rb"))["finetune_lr"][sys.argv[2]])' "$here/quick/study.toml" "$llm")
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
cd "$out"

for seed in "${seeds[@]}"; do
  stage1=seed$seed/stage1/$llm elastic=seed$seed/elastic/$llm answers=seed$seed/more/$llm
  uncompressed=seed$seed/stage2/$llm/$llm-mlp-v144
  mkdir -p "$answers"
  ask() { # ask FILE RUN...
    [ -e "$1" ] || vtc eval "${@:2}" --config "$settings/eval.toml" --resume \
      --benchmark world/benchmarks/reasoning.toml --benchmark world/benchmarks/ocr.toml -o "$1"
  }
  vtc finetune "$stage1"/{avgpool,tokenpacker,c-abstractor,ldpv2}-v36 --train-visual-tokens $tokens \
    --config "$settings/finetune.toml" --lr "$rate" --samples finetune.parquet \
    --features features --seed "$seed" --resume -o "$elastic"
  ask "$answers/elastic.parquet" "$elastic/$llm"-{avgpool,tokenpacker,c-abstractor,ldpv2}-v36 \
    --features features --visual-tokens $tokens
  # These need more of the encoder than the features hold.
  for compressor in divprune prumerge prumerge+ tome; do
    ask "$answers/$compressor.parquet" "$uncompressed" --compressor $compressor \
      --visual-tokens $tokens,64
  done
  ask "$answers/visionzip.parquet" "$uncompressed" --compressor visionzip --visual-tokens 4,16,36,64
done
vtc score seed*/more/*/*.parquet -o scores_more.parquet --force
