#!/usr/bin/env bash
# What twelve minutes of a GPU are spent on, most valuable first, on a bare machine that may be taken away at any time.
#   benchmarks/gpu.sh prepare DIR    where nvcc is: builds, and puts all that a run needs into DIR (well under 64 MiB)
#   benchmarks/gpu.sh run DIR OUT    on the machine with the GPU: OUT gets summary.txt, a line a step, and results.tar.gz,
#                                    both renewed after every step; a step that fails or takes too long stops no other
#   benchmarks/gpu.sh dry DIR        the same commands on the CPU, as short as they can be
# prepare: HALFTONE_DATA (MNIST in its folder mnist; else drawn digits are trained on), BUILD (a finished build to take
# instead of building), CUDA_ARCHITECTURES.
# run: BUDGET in seconds (690), STEPS (the first words of steps, such as "machine tests"; default: all), DEVICE (cuda).
set -euo pipefail

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
}

most_mib=40

prepare() {
  local root build program libraries
  root=$(cd "$(dirname "$0")/.." && pwd)
  build=${BUILD:-$root/build-for-gpu}
  if [ -z "${BUILD:-}" ]; then
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DHALFTONE_WITH_CUDA=ON -DHALFTONE_WITH_CURL=OFF \
      -DHALFTONE_WITH_PNG=OFF -DHALFTONE_WITH_JPEG=OFF -DHALFTONE_WITH_ONNX=OFF \
      -DHALFTONE_BUILD_TESTS=ON -DHALFTONE_BUILD_EXAMPLES=OFF -DHALFTONE_BUILD_BENCHMARKS=OFF \
      -DCMAKE_EXE_LINKER_FLAGS="-static-libstdc++ -static-libgcc" \
      ${CUDA_ARCHITECTURES:+"-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES"}
    cmake --build "$build" --parallel "$(nproc)" --target halftone_program halftone_gpu_tests
  fi

  content=$(mktemp -d)
  trap 'rm -rf "$content"' EXIT
  mkdir "$content/lib"
  for program in halftone halftone_gpu_tests; do
    strip -o "$content/$program" "$build/bin/$program"
    # What a bare machine may lack; the C and C++ libraries it has.
    libraries=$(ldd "$content/$program" | awk '$3 ~ /^\// && $3 !~ /\/lib(c|m|dl|rt|pthread)\.so[^\/]*$/ { print $3 }')
    if grep -v -e '/lib\(hwy\|fmt\|z\|gtest\)[^/]*$' <<<"$libraries"; then
      echo "$build: $program needs these libraries, which a bare machine lacks; let prepare build, or leave them out" >&2
      return 1
    fi
    cp -Lt "$content/lib" $libraries
  done
  mkdir -p "$dir"
  tar -C "$content" -czf "$dir/programs.tar.gz" halftone halftone_gpu_tests lib
  git -C "$root" describe --always --dirty >"$dir/commit"
  cp "$0" "$dir/gpu.sh"
  cp "$root/benchmarks/peers/train.py" "$dir/peers.py"
  rm -rf "$dir/mnist"
  if [ -n "${HALFTONE_DATA:-}" ]; then
    mkdir "$dir/mnist"
    cp "$HALFTONE_DATA"/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz "$dir/mnist/"
  fi
  du -sh "$dir"
  if [ "$(du -sm "$dir" | cut -f1)" -gt $most_mib ]; then
    echo "$dir: more than $most_mib MiB" >&2
    return 1
  fi
}

# phase SECONDS: so much for the steps that follow.
phase() {
  phase_end=$((SECONDS + $1))
  [ $phase_end -le "$budget" ] || phase_end=$budget
}

# step NAME SECONDS COMMAND...: at most so long. Its output is NAME.txt; `status` is its status. NAME.json is the
# command's own.
step() {
  local name=$1 limit=$2 began=$SECONDS text
  shift 2
  status=skipped
  [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" ${name%%.*} "* ]] || return 0
  [ "$limit" -le $((phase_end - SECONDS)) ] || limit=$((phase_end - SECONDS))
  if [ "$limit" -lt 3 ]; then
    late+=("$name")
    return 0
  fi
  status=0
  timeout -k 5 "$limit" "$@" >"$results/$name.txt" 2>&1 </dev/null || status=$?
  text=$(tail -n 1 "$results/$name.txt" | cut -c1-160)
  if [ -s "$results/$name.json" ]; then
    text=$(awk -F'[:,]' '/"images_per_second"/ { rate = $2 } END { if (rate) printf "%.0f images/s; ", rate }' "$results/$name.json")$text
  fi
  [ "$status" = 0 ] || failed+=("$name")
  echo "$name: $([ "$status" = 0 ] || echo "STATUS $status, ")$((SECONDS - began)) s; $text" | tee -a "$out/summary.txt"
  tar -C "$results" -czf "$out/results.part" --exclude='*.safetensors' . && mv "$out/results.part" "$out/results.tar.gz"
}

# Each test in a process of its own, since an error of the device spoils all that follows.
tests_alone() {
  local name
  "${tests[@]}" --gtest_list_tests | awk '/^[^ ]/ { suite = $1 } /^  / { print suite $1 }' >"$results/names"
  while read -r name; do step "tests.$name" 25 "${tests[@]}" --gtest_brief=1 --gtest_filter="$name"; done <"$results/names"
}

run() {
  local precision round net size modes tool cudnn libraries
  PATH=$PATH:/usr/local/cuda/bin
  budget=$((SECONDS + ${BUDGET:-690})) failed=() late=()
  results=$(mktemp -d) content=$(mktemp -d)
  trap 'rm -rf "$results" "$content"' EXIT
  local programs=$content
  tar -C "$programs" -xzf "$dir/programs.tar.gz"
  : >"$out/summary.txt"
  cp "$dir/commit" "$results/commit"

  # PyTorch brings a cuDNN along that the loader does not know.
  cudnn=$(python3 -c 'import glob, nvidia; print(":".join(d for p in nvidia.__path__ for d in sorted(glob.glob(p + "/*/lib"))))' 2>/dev/null || true)
  libraries=$programs/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  local without=(env HALFTONE_CUDNN=0 HALFTONE_CUBLAS=0 "LD_LIBRARY_PATH=$libraries") with=(env "LD_LIBRARY_PATH=$libraries${cudnn:+:$cudnn}")
  local halftone=("${with[@]}" "$programs/halftone")
  tests=("${with[@]}" "$programs/halftone_gpu_tests")
  local on=(--device "$device")
  local data=(--data digits)
  [ ! -d "$dir/mnist" ] || data=(--data mnist --data-dir "$dir/mnist")

  phase 40
  step machine.smi 20 nvidia-smi
  step machine.info 20 "${halftone[@]}" info "${on[@]}"
  step machine.kernels 30 "${halftone[@]}" info --net resnet18 --precision f16 --batch "$batch" "${on[@]}"

  phase 300
  step tests 200 "${tests[@]}" --gtest_brief=1
  if [ "$status" != skipped ] && [ "$status" != 0 ] && [ "$status" != 77 ]; then
    phase 120
    tests_alone
  fi

  # LeNet-5 to 99 %, and the same bits again; then a net whose convolutions have no bias, as cuDNN takes them.
  phase 180
  for precision in f16 f32 bf16; do
    step "mnist.$precision" 60 "${halftone[@]}" train --recipe lenet5 "${data[@]}" "${on[@]}" "${few[@]}" --precision "$precision" \
      --out "$results/$precision" --json "$results/mnist.$precision.json"
  done
  step mnist.again 60 "${halftone[@]}" train --recipe lenet5 "${data[@]}" "${on[@]}" "${few[@]}" --precision f16 --out "$results/again"
  step mnist.same_bits 5 diff -rs "$results/f16" "$results/again"
  for round in 1 2; do
    step "repeat.resnet20.$round" 40 "${halftone[@]}" train --net resnet20 "${data[@]}" "${on[@]}" --epochs 1 --limit "$images" \
      --precision f16 --out "$results/resnet20.$round"
  done
  step repeat.same_bits 5 diff -rs "$results/resnet20.1" "$results/resnet20.2"

  # Beside PyTorch, in turn, where that is.
  phase 300
  local peers=no
  if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then peers=yes; fi
  for net in lenet5 resnet18 resnet50; do
    size=128 modes=channels_last
    case $net in lenet5) modes=default ;; resnet18) size=$batch ;; resnet50) size=$large ;; esac
    if [ $peers = yes ]; then
      step "speed.$net" 90 "${with[@]}" python3 "$dir/peers.py" --program "$programs/halftone" --nets $net --precisions f16,bf16 \
        --batch "$size" "${on[@]}" --modes $modes --seconds "$seconds" --json "$results/speed.$net.json"
      step "compiled.$net" 90 "${with[@]}" python3 "$dir/peers.py" --program "$programs/halftone" --nets $net --precisions f16 \
        --batch "$size" "${on[@]}" --modes $modes,compile --rounds 2 --seconds "$seconds" --json "$results/compiled.$net.json"
    fi
    for precision in f16 bf16 f32; do
      step "alone.$net.$precision" 30 "${halftone[@]}" bench --net $net --batch "$size" --seconds "$seconds" --precision $precision \
        "${on[@]}" --json "$results/alone.$net.$precision.json"
    done
  done

  # Every number system trains here too; its error is for the eye, next to the CPU's.
  phase 60
  for precision in fixed:6.10:stochastic dynamic_fixed:10/12 fp8 int8 mxfp8 bf16_pure:kahan binary; do
    step "systems.${precision//[:\/]/-}" 20 "${halftone[@]}" train --net gupta "${data[@]}" "${on[@]}" --epochs 1 --limit "$images" \
      --precision "$precision" --json "$results/systems.${precision//[:\/]/-}.json"
  done
  step systems.predict 20 "${halftone[@]}" eval --checkpoint "$results/f16" "${data[@]}" "${on[@]}"

  # Dense layers by cuBLAS, by cuDNN, by kernels of our own.
  phase 40
  for precision in f16 f32; do
    for size in 128 4096; do
      step "products.$precision.$size.cublas" 10 "${halftone[@]}" bench --net mlp --batch $size --seconds 1 --precision $precision "${on[@]}"
      step "products.$precision.$size.cudnn" 10 "${with[@]}" HALFTONE_CUBLAS=0 "$programs/halftone" bench --net mlp --batch $size \
        --seconds 1 --precision $precision "${on[@]}"
      step "products.$precision.$size.own" 10 "${without[@]}" "$programs/halftone" bench --net mlp --batch $size \
        --seconds 1 --precision $precision "${on[@]}"
    done
  done

  phase 60
  step profile.lenet5 20 "${halftone[@]}" bench --net lenet5 --precision f16 --seconds 0.5 --profile nodes "${on[@]}"
  step profile.resnet18 30 "${halftone[@]}" bench --net resnet18 --batch "$batch" --precision f16 --seconds 0.5 --profile nodes "${on[@]}"
  step profile.resnet50 30 "${halftone[@]}" bench --net resnet50 --batch "$large" --precision f16 --seconds 0.5 --profile nodes "${on[@]}"
  if command -v ncu >/dev/null; then
    step profile.norms 40 ncu --clock-control none --csv --kernel-name-base demangled -k 'regex:ColumnSums|FoldParts|Normalize|InputGradient' \
      --launch-count 120 --metrics "$counters" \
      "${halftone[@]}" bench --net resnet50 --batch "$large" --seconds 0 --precision f16 "${on[@]}"
  fi

  # bench takes eight steps at least. Without cuDNN, whose own code is not to be judged.
  phase 150
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      step "sanitizer.$tool" 75 "${without[@]}" compute-sanitizer --tool $tool --error-exitcode 9 "$programs/halftone" bench \
        --net lenet5 --batch 8 --seconds 0 --precision f16 "${on[@]}"
    done
  fi

  # Open questions: own convolutions against cuDNN's, what timing cuDNN's plans gains, the time of a step of nearly no work
  # (it is spent between the nodes of the graph), from nothing to the first steps.
  phase 120
  step open.own_convolutions 30 "${without[@]}" "$programs/halftone" bench --net resnet18 --batch "$batch" --seconds "$seconds" --precision f16 "${on[@]}"
  for net in resnet18 resnet50; do
    size=$batch
    [ $net = resnet18 ] || size=$large
    step open.tuned.$net 60 env HALFTONE_CUDNN_TUNE=1 "XDG_CACHE_HOME=$results/cache" "${halftone[@]}" bench --net $net --batch "$size" \
      --seconds "$seconds" --precision f16 --profile nodes "${on[@]}"
  done
  step open.one_image 20 "${halftone[@]}" bench --net lenet5 --batch 1 --seconds 1 --precision f16 "${on[@]}"
  step open.cold 20 "${halftone[@]}" bench --net resnet18 --batch "$batch" --seconds 0 --precision f16 "${on[@]}"
  echo "$SECONDS s; failed: ${failed[*]:-none}; no time for: ${late[*]:-none}" | tee -a "$out/summary.txt"
}

[ $# -ge 2 ] || usage
command=$1 dir=$2
counters=gpu__time_duration.sum,dram__bytes.sum.per_second,sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread
device=${DEVICE:-cuda} batch=512 large=128 seconds=2 images=12800 few=()
phase_end=0 budget=0 status=0 results='' content='' out='' failed=() late=() tests=()
case $command in
  prepare) prepare ;;
  run)
    [ $# = 3 ] || usage
    mkdir -p "$3"
    dir=$(cd "$dir" && pwd) out=$(cd "$3" && pwd)
    run
    ;;
  dry)
    out=$(mktemp -d)
    dir=$(cd "$dir" && pwd)
    device=cpu batch=2 large=1 seconds=0 images=128 few=(--epochs 1 --limit 1280)
    run
    rm -rf "$out"
    # Neither the driver nor the GPU's tests can be there.
    for name in "${failed[@]}"; do [ "$name" = tests ] || [ "$name" = machine.smi ] || exit 1; done
    ;;
  *) usage ;;
esac
