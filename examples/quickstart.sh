#!/usr/bin/env bash
# Builds the program, trains LeNet-5 on MNIST in three number formats, three seeds each, and prints what each of them cost
# and reached.
set -euo pipefail
source "$(dirname "$0")/../scripts/setup.sh"
cd "$root"

need_packages "${library_packages[@]}"
need_packages "${optional_packages[@]}" || echo "Building without ONNX files"
cuda=OFF
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then cuda=AUTO; fi
build_with -DHALFTONE_BUILD_TESTS=OFF -DHALFTONE_BUILD_EXAMPLES=OFF -DHALFTONE_BUILD_BENCHMARKS=OFF \
  -DHALFTONE_WITH_CUDA=$cuda
halftone=$build/bin/halftone

data=mnist epochs=2
if ! "$halftone" info --data mnist >/dev/null 2>&1; then
  echo "MNIST is not here; fetching it (at most a minute)"
  if ! timeout 60 "$halftone" fetch mnist; then
    data=digits epochs=6  # of a third of the images
    echo "MNIST could not be fetched: training on synthetic digits instead (--data digits), which are drawn, not written."
  fi
fi

report=$build/quickstart
rm -rf "$report"
echo "LeNet-5 on $data, $epochs epochs, three seeds in each of three formats"
"$halftone" study --net lenet5 --data $data --precisions f32,f16,bf16 --seeds 3 --epochs $epochs --schedule one_cycle --lr 0.1 \
  --out "$report"
