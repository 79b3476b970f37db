#!/bin/sh
# Runs the CUDA compiler and keeps what ptxas says of registers and spills beside the object, for tests/kernels_fit.cmake.
out= previous=
for argument in "$@"; do
  [ "$previous" = -o ] && out=$argument
  previous=$argument
done
"$@" 2>"$out.ptxas"
status=$?
grep -v -e '^ptxas info' -e '^    [0-9]* bytes stack frame' -e '^$' "$out.ptxas" >&2
exit $status
