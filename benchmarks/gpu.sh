#!/usr/bin/env bash
# What a few minutes of a GPU are spent on, most valuable first; every result is written as soon as it is there.
#   benchmarks/gpu.sh prepare DIR    where nvcc is: builds and puts all that a run needs into DIR (MNIST from $HALFTONE_DATA,
#                                    scripts of PyTorch peers from $HALFTONE_PEERS, where these are set)
#   benchmarks/gpu.sh run DIR OUT    on the machine with the GPU; $STEPS names the steps, all by default
#   benchmarks/gpu.sh dry DIR        as far as it goes without a GPU
set -euo pipefail
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# -ge 2 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
dir=$2

prepare() {
  local root build
  root=$(cd "$here/.." && pwd)
  build=${HALFTONE_BUILD_DIR:-$root/build-for-gpu}
  cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DHALFTONE_WITH_CUDA=ON -DHALFTONE_WITH_CURL=OFF \
    -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-90a-real}" \
    -DHALFTONE_BUILD_TESTS=ON -DHALFTONE_BUILD_EXAMPLES=OFF -DHALFTONE_BUILD_BENCHMARKS=OFF \
    -DCMAKE_EXE_LINKER_FLAGS="-static-libstdc++ -static-libgcc" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
  rm -f "$build.log"
  cmake --build "$build" --parallel "$(nproc)" --target halftone_program halftone_gpu_tests
  mkdir -p "$dir/lib"
  for program in halftone halftone_gpu_tests; do
    strip -o "$dir/$program" "$build/bin/$program"
    # Libraries that a bare machine may lack travel along.
    ldd "$dir/$program" | awk '$3 ~ /libhwy|libfmt|libz|libgtest/ { print $3 }' | xargs -r cp -Lt "$dir/lib"
  done
  git -C "$root" rev-parse HEAD >"$dir/commit"
  cp "$0" "$dir/gpu.sh"
  if [ -n "${HALFTONE_DATA:-}" ]; then mkdir -p "$dir/data/mnist" && cp "$HALFTONE_DATA"/mnist/*ubyte* "$dir/data/mnist/"; fi
  if [ -n "${HALFTONE_PEERS:-}" ]; then mkdir -p "$dir/peers" && cp "$HALFTONE_PEERS"/*.py "$dir/peers/"; fi
  du -sh "$dir"
  [ "$(du -sm "$dir" | cut -f1)" -lt 60 ] || { echo "$dir is too large to carry"; return 1; }
}

# step NAME SECONDS COMMAND...: at most so long; its output and its status stay in OUT, and the next one follows.
step() {
  local name=$1 seconds=$2 status=0 began=$SECONDS
  shift 2
  [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" ${name%%.*} "* ]] || return 0
  timeout -k 5 "$seconds" "$@" >"$out/$name.txt" 2>&1 || status=$?
  echo "$name: status $status, $((SECONDS - began)) s; $(tail -n 1 "$out/$name.txt" | cut -c1-150)" | tee -a "$out/summary.txt"
}

run() {
  export LD_LIBRARY_PATH=$dir/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  local halftone=$dir/halftone device=${DEVICE:-cuda} data=digits precision round
  [ ! -d "$dir/data/mnist" ] || data=mnist
  local train=("$halftone" train --recipe lenet5 --data "$data" --device "$device")
  [ ! -d "$dir/data/mnist" ] || train+=(--data-dir "$dir/data/mnist")
  [ -z "${LIMIT:-}" ] || train+=(--epochs 1 --limit "$LIMIT")
  cp "$dir/commit" "$out/commit"

  step machine 20 bash -c "nvidia-smi; '$halftone' info; '$halftone' info --net resnet18 --precision f16 --batch 512 --device $device"
  step tests 240 "$dir/halftone_gpu_tests" --gtest_brief=1
  for precision in f32 f16 bf16; do
    step "mnist.$precision" 90 "${train[@]}" --precision $precision --out "$out/$precision" --json "$out/mnist.$precision.json"
  done
  step "bits.again" 90 "${train[@]}" --precision f16 --out "$out/f16-again"
  step "bits.same" 5 cmp "$out/f16/model.safetensors" "$out/f16-again/model.safetensors"
  for round in 1 2; do
    for precision in f16 bf16 f32; do
      step "speed.lenet5.$precision.$round" 20 "$halftone" bench --net lenet5 --batch 128 --seconds 3 --precision $precision \
        --device "$device" --json "$out/lenet5.$precision.$round.json"
      step "speed.resnet18.$precision.$round" 40 "$halftone" bench --net resnet18 --batch "${BATCH:-512}" --seconds 4 \
        --precision $precision --device "$device" --json "$out/resnet18.$precision.$round.json"
    done
    if [ -d "$dir/peers" ] && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
      for precision in f16 bf16; do
        step "speed.peer.lenet5.$precision.$round" 40 python3 "$dir/peers/train.py" --net lenet5 --batch 128 \
          --precision $precision --mode eager --seconds 3 --device cuda
        step "speed.peer.resnet18.$precision.$round" 60 python3 "$dir/peers/train.py" --net resnet18 --batch 512 \
          --precision $precision --mode channels_last --seconds 4 --device cuda
      done
    fi
  done
  step "profile.lenet5" 30 "$halftone" bench --net lenet5 --precision f16 --seconds 1 --profile nodes --device "$device"
  step "profile.resnet18" 60 "$halftone" bench --net resnet18 --batch "${BATCH:-512}" --precision f16 --seconds 1 \
    --profile nodes --device "$device"
  if command -v compute-sanitizer >/dev/null; then
    local few=("$halftone" bench --net lenet5 --batch 8 --seconds 0.1 --precision f16 --device "$device")
    step "sanitizer.memcheck" 120 compute-sanitizer --tool memcheck --error-exitcode 9 "${few[@]}"
    step "sanitizer.racecheck" 120 compute-sanitizer --tool racecheck --error-exitcode 9 "${few[@]}"
  fi
}

case $1 in
  prepare) prepare ;;
  run)
    [ $# -eq 3 ] || usage
    mkdir -p "$3"
    dir=$(cd "$dir" && pwd) out=$(cd "$3" && pwd)
    run
    ;;
  dry)  # the same commands on the CPU, as short as they can be
    dir=$(cd "$dir" && pwd) out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    DEVICE=cpu LIMIT=1280 BATCH=8 run
    LD_LIBRARY_PATH=$dir/lib "$dir/halftone_gpu_tests" --gtest_list_tests | grep -c '^  ' | sed 's/$/ tests/'
    ;;
  *) usage ;;
esac
