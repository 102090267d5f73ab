#!/usr/bin/env bash
# Every trained compressor on the quick world, same recipe, same data, then side by side:
#   recipes/study/compressors.sh OUT [SEED...]
# One LLM of the quick study; LLMS="mini-b mini-d" takes more. Started again, it goes on.
set -euo pipefail
out=$1
shift
seeds=("$@")
[ ${#seeds[@]} -gt 0 ] || seeds=(0 1)
here=$(cd "$(dirname "$0")" && pwd)
settings=$here/compressors
tokens=1,4,16,36
rate() { # rate LLM: the quick study's rate of the second stage
  python -c 'import sys, tomllib
print(tomllib.load(open(sys.argv[1], "rb"))["finetune_lr"][sys.argv[2]])' "$here/quick/study.toml" "$1"
}
once() { # once FILE COMMAND...: unless FILE is there
  [ -e "$1" ] || "${@:2}"
}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
mkdir -p "$out" && cd "$out"

once world vtc lab world --preset quick
for part in pretrain finetune; do
  once $part.parquet vtc check-data "world/$part.json" --images world/images -o $part.parquet
done
once features vtc encode pretrain.parquet finetune.parquet world/benchmarks/*.toml \
  --images world/images --encoder world/encoder -o features

for llm in ${LLMS:-mini-b}; do
  for seed in "${seeds[@]}"; do
    stage1=seed$seed/stage1/$llm stage2=seed$seed/stage2/$llm answers=seed$seed/predictions
    mkdir -p "$answers"
    project() {
      vtc train-projector pretrain.parquet --config "$settings/train-projector.toml" \
        --encoder world/encoder --llm "world/llm/$llm" --features features --seed "$seed" \
        --resume -o "$stage1" "$@"
    }
    tune() {
      vtc finetune --config "$settings/finetune.toml" --lr "$(rate "$llm")" \
        --samples finetune.parquet --features features --seed "$seed" --resume -o "$stage2" "$@"
    }
    ask() { # ask FILE RUN...
      once "$1" vtc eval "${@:2}" --config "$settings/eval.toml" --features features --resume \
        --benchmark world/benchmarks/reasoning.toml --benchmark world/benchmarks/ocr.toml -o "$1"
    }
    project --compressor mlp --visual-tokens 144
    # The elastic ones: stage 1 at 36 alone, for a token of align has one region; then at every V.
    project --compressor mqt,m3 --visual-tokens 36
    # Twelve layers of BERT behind an encoder of three would be most of the model.
    project --compressor qformer --compressor-setting layers=2 --visual-tokens $tokens
    project --compressor avgpool,pixel-shuffle,tokenpacker,quecc,resampler,c-abstractor,ldpv2,blind \
      --visual-tokens $tokens
    elastic=("$stage1"/{mqt,m3}-v36)
    fixed=()
    for run in "$stage1"/*-v*; do
      [[ $run == */mqt-v36 || $run == */m3-v36 || $run == *.training ]] || fixed+=("$run")
    done
    tune "${elastic[@]}" --train-visual-tokens $tokens
    tune "${fixed[@]}"
    ask "$answers/$llm-elastic.parquet" "$stage2/$llm"-{mqt,m3}-v36 --visual-tokens $tokens
    ask "$answers/$llm.parquet" "${fixed[@]/#$stage1\//$stage2/$llm-}"
  done
done
models=(--encoder world/encoder)
for llm in ${LLMS:-mini-b}; do models+=(--llm "world/llm/$llm"); done
vtc score seed*/predictions/*.parquet -o scores.parquet --force
vtc compare scores.parquet "${models[@]}" --q 4 --runs . --figure compare.png -o compare.parquet --force
