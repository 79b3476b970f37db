# Installs the library, its headers, a CMake package with the components `cpu` and, where it is compiled
# in, `cuda`, and halftone.pc.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/halftone)
install(TARGETS halftone EXPORT halftoneTargets)
if(TARGET halftone_program)
  install(TARGETS halftone_program)
endif()
install(DIRECTORY include/halftone "${PROJECT_BINARY_DIR}/include/halftone"
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")
install(EXPORT halftoneTargets NAMESPACE halftone:: DESTINATION ${package_dir})
configure_package_config_file(cmake/halftoneConfig.cmake.in halftoneConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(halftoneConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/halftoneConfig.cmake" "${PROJECT_BINARY_DIR}/halftoneConfigVersion.cmake"
        DESTINATION ${package_dir})

# A static library hands its own needs on to whoever links it.
set(pc_needs "libhwy fmt zlib")
if(CURL_FOUND)
  string(APPEND pc_needs " libcurl")
endif()
set(pc_libs "-pthread")
if(CUDAToolkit_FOUND)
  string(APPEND pc_libs " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -ldl")
endif()
set(pc_suffix "")
if(BUILD_SHARED_LIBS)
  set(pc_suffix ".private")
endif()
file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/halftone.pc.in halftone.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/halftone.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
