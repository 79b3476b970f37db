#!/usr/bin/env bash
# Builds everything and runs the fast tests; further arguments go to ctest (`tests/run.sh -R Conv2d`).
# The slow ones: ctest --test-dir build -L slow
set -euo pipefail
source "$(dirname "$0")/../scripts/setup.sh"

need_packages "${library_packages[@]}" "${test_packages[@]}"
need_packages "${optional_packages[@]}" || echo "Building without ONNX files"
build_with -DHALFTONE_BUILD_TESTS=ON -DHALFTONE_BUILD_EXAMPLES=ON -DHALFTONE_BUILD_BENCHMARKS=ON \
  -DHALFTONE_WITH_CUDA=AUTO -DHALFTONE_WERROR="${HALFTONE_WERROR:-OFF}"
exec ctest --test-dir "$build" -LE slow --parallel 2 --output-on-failure "$@"
