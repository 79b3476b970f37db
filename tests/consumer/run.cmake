# Installs what is built in BUILD_DIR under a temporary prefix, moves that, and uses it as a stranger would: through
# find_package and through pkg-config, with the generator and the tools that built it.
#   cmake -DBUILD_DIR=.. -DWORK_DIR=.. -DGENERATOR=.. -DMAKE_PROGRAM=.. -DCXX=.. -DCONFIG=.. -DCOMPONENTS=.. -P run.cmake
cmake_minimum_required(VERSION 3.22)
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")
run(${CMAKE_COMMAND} --install "${BUILD_DIR}" --prefix "${WORK_DIR}/installed" --config "${CONFIG}")
file(RENAME "${WORK_DIR}/installed" "${WORK_DIR}/moved")

run(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}" -B "${WORK_DIR}/build" -G "${GENERATOR}"
    "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}" "-DCMAKE_PREFIX_PATH=${WORK_DIR}/moved" "-DCMAKE_CXX_COMPILER=${CXX}"
    "-DCMAKE_CXX_FLAGS=${CXX_FLAGS}" "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DCOMPONENTS=${COMPONENTS}")
run(${CMAKE_COMMAND} --build "${WORK_DIR}/build" --config "${CONFIG}")
run("${WORK_DIR}/build/consumer")

find_program(pkg_config NAMES pkg-config pkgconf)
if(NOT pkg_config)
  message(STATUS "no pkg-config here: halftone.pc was not tried")
  return()
endif()
file(GLOB pc_file "${WORK_DIR}/moved/*/pkgconfig/halftone.pc" "${WORK_DIR}/moved/*/*/pkgconfig/halftone.pc")
cmake_path(GET pc_file PARENT_PATH pc_dir)
execute_process(COMMAND ${CMAKE_COMMAND} -E env "PKG_CONFIG_PATH=${pc_dir}" ${pkg_config} --cflags --libs halftone
                OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(flags UNIX_COMMAND "${CXX_FLAGS} ${flags}")
cmake_path(GET pc_dir PARENT_PATH lib_dir)
run(${CXX} "${CMAKE_CURRENT_LIST_DIR}/main.cpp" -o "${WORK_DIR}/by_pkg_config" ${flags} "-Wl,-rpath,${lib_dir}")
run("${WORK_DIR}/by_pkg_config")
file(REMOVE_RECURSE "${WORK_DIR}")
