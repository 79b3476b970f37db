# Reports each operation of kernels/cpu/table.cpp whose class no test under tests/kernels hands to check_kernels.
#   cmake -DROOT=.. -P kernels_are_tested.cmake
cmake_minimum_required(VERSION 3.22)

# What works on the parameters of a whole trainer is tested through it.
set(tested_by_trainer check_gradients accumulate_gradients advance update average_weights finish seed_gradient)

# class_of_<operation>, from "struct Conv2d final : Op {" and the name() below it.
file(GLOB headers "${ROOT}/include/halftone/graph/*.hpp" "${ROOT}/include/halftone/ops/*.hpp")
foreach(header IN LISTS headers)
  file(STRINGS "${header}" lines REGEX "final : |string name\\(\\) const override { return \"")
  foreach(line IN LISTS lines)
    if(line MATCHES "struct ([A-Za-z0-9]+) final")
      set(class ${CMAKE_MATCH_1})
    elseif(line MATCHES "return \"([a-z0-9_]+)\"")
      set(class_of_${CMAKE_MATCH_1} ${class})
    endif()
  endforeach()
endforeach()

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
file(STRINGS "${ROOT}/kernels/cpu/table.cpp" lines REGEX "^      {\"[a-z0-9_]+\",")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^ *{\"([a-z0-9_]+)\".*" "\\1" operation "${line}")
  if(NOT operation IN_LIST tested_by_trainer AND
     NOT (DEFINED class_of_${operation} AND code MATCHES "[^A-Za-z0-9_]${class_of_${operation}}[ ({]"))
    list(APPEND untested ${operation})
  endif()
endforeach()
list(LENGTH lines count)
if(untested OR count EQUAL 0)
  message(FATAL_ERROR "of ${count} operations these have kernels that no test runs: ${untested}")
endif()
message(STATUS "all ${count} operations have tests")
