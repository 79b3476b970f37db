#!/usr/bin/env bash
# Builds the program, trains LeNet-5 on MNIST in three number formats, and prints what each of them cost and reached.
set -euo pipefail
source "$(dirname "$0")/../scripts/setup.sh"
cd "$root"

need_packages "${library_packages[@]}"
cuda=OFF
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then cuda=AUTO; fi
build_with -DHALFTONE_BUILD_TESTS=OFF -DHALFTONE_BUILD_EXAMPLES=OFF -DHALFTONE_BUILD_BENCHMARKS=OFF \
  -DHALFTONE_WITH_CUDA=$cuda
halftone=$build/bin/halftone

has_mnist() {
  local place
  for place in ${HALFTONE_DATA:+"$HALFTONE_DATA/mnist"} data/mnist "${XDG_CACHE_HOME:-${HOME:-}/.cache}/halftone/mnist"; do
    if [ -e "$place/train-images-idx3-ubyte.gz" ] || [ -e "$place/train-images-idx3-ubyte" ]; then return 0; fi
  done
  return 1
}
data=mnist
if ! has_mnist; then
  echo "MNIST is not here; fetching it (at most a minute)"
  if ! timeout 60 "$halftone" fetch mnist; then
    data=digits
    echo "MNIST could not be fetched: training on synthetic digits instead (--data digits), which are drawn, not written."
  fi
fi

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
for precision in f32 f16 bf16; do
  echo
  echo "== LeNet-5 on $data in $precision"
  "$halftone" train --net lenet5 --data $data --precision $precision --epochs 2 --schedule one_cycle --lr 0.1 \
    --json "$results/$precision.json"
done

# One row of the table from a report: each field stands on a line of its own once the brackets are gone.
row() {
  tr ',{}[]' '\n' <"$results/$1.json" | tr -d ' "' | awk -F: -v precision="$1" '
    { value[$1] = $2 }               # the last one counts: the totals follow the epochs
    $1 == "seconds" { seconds += $2 }
    END {
      printf "%-10s %12.2f %9.1f %16.1f %10.1f %14d\n", precision, 100 * value["test_error"], seconds,
        value["activations"] / 1e6, value["peak"] / 1e6, value["skipped_steps"]
    }'
}
printf '\nLeNet-5, %s, 2 epochs\n' "$data"
printf '%-10s %12s %9s %16s %10s %14s\n' precision 'test error %' seconds 'activations MB' 'peak MB' 'skipped steps'
for precision in f32 f16 bf16; do row $precision; done
