#!/usr/bin/env bash
# Does it help to feed the LLM the same visual tokens several times? 1, 4 and 16 tokens of an image,
# and fewer tokens repeated up to as many, on the world of the quick study:
#   recipes/study/repeat.sh OUT ["SIZE ..."] ["SEED ..."]
set -euo pipefail
out=$1 sizes=${2:-mini-c mini-d} seeds=${3:-0 1}
here=$(cd "$(dirname "$0")" && pwd)
quick=$here/quick
rate() { # rate SIZE: the finetuning rate of study.toml
  python -c 'import sys, tomllib
print(tomllib.load(open(sys.argv[1], "rb"))["finetune_lr"][sys.argv[2]])' "$quick/study.toml" "$1"
}
export OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
mkdir -p "$out" && cd "$out"

vtc lab world --preset quick
for part in pretrain finetune; do
  vtc check-data "world/$part.json" --images world/images -o "$part.parquet"
done
vtc encode pretrain.parquet finetune.parquet world/benchmarks/*.toml --images world/images \
  --encoder world/encoder --compressor tokenpacker -o features
for size in $sizes; do
  for seed in $seeds; do
    stage1=stage1/$size-s$seed stage2=stage2/$size-s$seed
    # Its objective feeds no LLM: stage 1 of V tokens is the same however often they are repeated.
    vtc train-projector pretrain.parquet --config "$quick/train-projector.toml" --resume \
      --encoder world/encoder --llm "world/llm/$size" --features features \
      --visual-tokens 1,4,16 --seed "$seed" -o "$stage1"
    repeated() { # repeated K V...: finetune the runs of V tokens, each fed K times
      local k=$1 runs=("${@:2}")
      vtc finetune "${runs[@]/#/$stage1/tokenpacker-v}" --config "$quick/finetune.toml" --resume \
        --samples finetune.parquet --lr "$(rate "$size")" --features features --seed "$seed" \
        --repeat-visual-tokens "$k" -o "$stage2"
    }
    repeated 1 1 4 16
    repeated 4 1 4
    repeated 16 1
    vtc eval "$stage2"/* --config "$quick/eval.toml" --features features \
      --benchmark world/benchmarks/reasoning.toml --benchmark world/benchmarks/ocr.toml \
      -o "predictions-$size-s$seed.parquet"
  done
done
vtc score predictions-*.parquet -o scores.parquet
python "$here/repeated.py" predictions-*.parquet
