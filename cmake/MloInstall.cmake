# install(): headers, library, and a package that finds LibTorch by the same finder.
include(CMakePackageConfigHelpers)

set(mlo_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/mlo")
set_target_properties(mlo PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)

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
