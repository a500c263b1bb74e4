# install(): headers, library, and a package that finds LibTorch by the same finder.
include(CMakePackageConfigHelpers)

set(mlo_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/mlo")
# CMake's own INSTALL_RPATH_USE_LINK_PATH leaves out what stands in the source tree, as .deps does.
set_target_properties(mlo PROPERTIES INSTALL_RPATH "${MloTorch_ROOT_DIR}/lib")

# mlo_install_program(target): beside the library, and only if it is built: `cmake --build … --target mlo` and --install give the
# library alone.
function(mlo_install_program target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${MloTorch_ROOT_DIR}/lib")
  install(TARGETS ${target} OPTIONAL)
endfunction()

install(TARGETS mlo EXPORT mloTargets)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/mlo" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(EXPORT mloTargets NAMESPACE mlo:: DESTINATION "${mlo_package_dir}")

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/mloConfig.cmake.in" "${PROJECT_BINARY_DIR}/mloConfig.cmake"
  INSTALL_DESTINATION "${mlo_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/mloConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/mloConfig.cmake" "${PROJECT_BINARY_DIR}/mloConfigVersion.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/FindMloTorch.cmake"
  DESTINATION "${mlo_package_dir}")
