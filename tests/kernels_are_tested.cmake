# Reports each operation that kernels/cpu/table.cpp lists by its class where no test under tests/kernels hands that class
# to check_kernels.
#   cmake -DROOT=.. -P kernels_are_tested.cmake
cmake_minimum_required(VERSION 3.22)

# What works on the parameters of a whole trainer is tested through it.
set(tested_by_trainer SeedGradient BeginMicroBatch CheckGradients AccumulateGradients Advance MoveRanges Update
    SettleRanges KeepStatistics AverageWeights Lookahead Finish)

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
file(READ "${ROOT}/kernels/cpu/table.cpp" table)
string(REGEX MATCHALL "::list<[A-Za-z0-9]+>" lists "${table}")
foreach(list IN LISTS lists)
  string(REGEX REPLACE ".*<(.*)>" "\\1" class "${list}")
  if(NOT class IN_LIST tested_by_trainer AND NOT code MATCHES "[^A-Za-z0-9_]${class}[ ({]")
    list(APPEND untested ${class})
  endif()
endforeach()
list(LENGTH lists count)
if(untested OR count EQUAL 0)
  message(FATAL_ERROR "of ${count} operations these have kernels that no test runs: ${untested}")
endif()
message(STATUS "all ${count} operations have tests")
