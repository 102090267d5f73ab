#!/usr/bin/env bash
# The study as the shell pipeline that the Snakefile amounts to, one seed, one job at a time:
#   recipes/study/study.sh quick OUT [SEED]
set -euo pipefail
study=$1 out=$2 seed=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
settings=$here/$study
setting() { # setting KEY [KEY]: a value of study.toml, lists as words
  python -c 'import sys, tomllib
v = tomllib.load(open(sys.argv[1], "rb"))
for key in sys.argv[2:]: v = v[key]
print(*v if isinstance(v, list) else [v])' "$settings/study.toml" "$@"
}
tokens=$(setting visual_tokens | tr ' ' ',')
q=$(setting text_tokens)
export OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
mkdir -p "$out" && cd "$out"

vtc lab world --preset "$study" --seed "$seed"
for part in pretrain finetune; do
  vtc check-data "world/$part.json" --images world/images -o "$part.parquet"
done
vtc encode pretrain.parquet finetune.parquet world/benchmarks/*.toml --images world/images \
  --encoder world/encoder --compressor tokenpacker -o features
for size in $(setting sizes); do
  vtc train-projector pretrain.parquet --config "$settings/train-projector.toml" \
    --encoder world/encoder --llm "world/llm/$size" --features features \
    --visual-tokens "$tokens" --seed "$seed" -o "stage1/$size"
  vtc finetune "stage1/$size"/* --config "$settings/finetune.toml" --samples finetune.parquet \
    --lr "$(setting finetune_lr "$size")" --features features --seed "$seed" -o "stage2/$size"
  vtc eval "stage2/$size"/* --config "$settings/eval.toml" --features features \
    --benchmark world/benchmarks/reasoning.toml --benchmark world/benchmarks/ocr.toml \
    -o "predictions-$size.parquet"
done
vtc score predictions-*.parquet -o scores.parquet
vtc fit scores.parquet -o law.parquet
vtc fit scores.parquet --holdout "$(setting holdout)"
python "$here/laws.py" law.parquet
vtc plot law scores.parquet --law law.parquet --q "$q" -o law.png
for task in reasoning ocr; do
  vtc recommend --flops "$(setting flops)" --q "$q" --task $task --law law.parquet \
    --models world/llms.csv --visual-tokens "$tokens" || [ $? -eq 3 ] # 3: no trustworthy answer
done
