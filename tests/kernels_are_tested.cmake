# Reports each operation of kernels/cpu/table.cpp whose class no test under tests/kernels hands to check_kernels.
#   cmake -DROOT=.. -P kernels_are_tested.cmake
cmake_minimum_required(VERSION 3.22)

# What works on the parameters of a whole trainer is tested through it.
set(tested_by_trainer BeginMicroBatch SeedGradient CheckGradients AccumulateGradients Advance MoveRanges Update
    SettleRanges AverageWeights Finish)

set(code "")
file(GLOB tests "${ROOT}/tests/kernels/*_test.cpp")
foreach(test IN LISTS tests)
  file(READ "${test}" text)
  if(text MATCHES "check_kernels")
    string(REGEX REPLACE "//[^\n]*" "" text "${text}")
    string(APPEND code "${text}")
  endif()
endforeach()

set(untested "")
file(STRINGS "${ROOT}/kernels/cpu/table.cpp" lines REGEX "list<[A-Za-z0-9]+>")
foreach(line IN LISTS lines)
  string(REGEX REPLACE ".*list<([A-Za-z0-9]+)>.*" "\\1" class "${line}")
  if(NOT class IN_LIST tested_by_trainer AND NOT code MATCHES "[^A-Za-z0-9_]${class}[ ({]")
    list(APPEND untested ${class})
  endif()
endforeach()
list(LENGTH lines count)
if(untested OR count EQUAL 0)
  message(FATAL_ERROR "of ${count} operations these have kernels that no test runs: ${untested}")
endif()
message(STATUS "all ${count} operations have tests")
