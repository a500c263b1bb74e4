# Finds LibTorch without the CUDA toolkit that LibTorch's own package asks for.
#
# Where, first found wins: Torch_DIR, Torch_ROOT, CMAKE_PREFIX_PATH (variables, then environment); MLO_TORCH_HINTS, where
# scripts/setup.sh or the build of an installed mlo left one. In each an unzipped libtorch, a wheel's site-packages/torch,
# the site-packages around it, or the Python environment around that.
#
# Gives
#   mlo::torch             headers and CPU libraries; target to link with
#   mlo::torch_cuda        the same with the CUDA libraries; only if MloTorch_CUDA_VERSION is set
#   MloTorch_ROOT_DIR  MloTorch_VERSION  MloTorch_CUDA_VERSION (major; empty without)
#
# The headers are searched behind the system's (-idirafter): the wheel ships copies of fmt and others, which must not stand in
# front of those that the rest of a program uses. That also makes them system headers, silent under warnings.

set(_mlo_torch_candidates)
foreach(_dir IN ITEMS "${Torch_DIR}" "$ENV{Torch_DIR}")
  if(_dir)
    list(APPEND _mlo_torch_candidates "${_dir}/../../.." "${_dir}")
  endif()
endforeach()
set(_mlo_prefixes ${Torch_ROOT} $ENV{Torch_ROOT} ${CMAKE_PREFIX_PATH})
string(REPLACE ":" ";" _mlo_env_prefixes "$ENV{CMAKE_PREFIX_PATH}")
list(APPEND _mlo_prefixes ${_mlo_env_prefixes} ${MLO_TORCH_HINTS})
foreach(_dir IN LISTS _mlo_prefixes)
  file(GLOB _mlo_site_packages "${_dir}/lib/python3*/site-packages/torch")
  list(APPEND _mlo_torch_candidates "${_dir}" "${_dir}/torch" ${_mlo_site_packages})
endforeach()

# The first directory that holds a LibTorch decides, also if its version is wrong: a LibTorch given is never passed over.
set(MloTorch_ROOT_DIR)
set(MloTorch_VERSION)
set(MloTorch_CUDA_VERSION)
foreach(_dir IN LISTS _mlo_torch_candidates)
  if(EXISTS "${_dir}/lib/libtorch_cpu.so" AND EXISTS "${_dir}/include/torch/csrc/api/include/torch/torch.h")
    get_filename_component(MloTorch_ROOT_DIR "${_dir}" ABSOLUTE)
    break()
  endif()
endforeach()

if(MloTorch_ROOT_DIR)
  foreach(_header IN ITEMS torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    if(NOT MloTorch_VERSION AND EXISTS "${MloTorch_ROOT_DIR}/include/${_header}")
      file(STRINGS "${MloTorch_ROOT_DIR}/include/${_header}" _mlo_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
      string(REGEX MATCHALL "[0-9]+" _mlo_numbers "${_mlo_lines}")
      list(JOIN _mlo_numbers "." MloTorch_VERSION)
    endif()
  endforeach()
  if(EXISTS "${MloTorch_ROOT_DIR}/lib/libtorch_cuda.so")
    file(STRINGS "${MloTorch_ROOT_DIR}/lib/libc10_cuda.so" _mlo_lines REGEX "libcudart\\.so\\.[0-9]+" LIMIT_COUNT 1)
    if(_mlo_lines MATCHES "libcudart\\.so\\.([0-9]+)")
      set(MloTorch_CUDA_VERSION ${CMAKE_MATCH_1})
    endif()
  endif()
  set(_mlo_reason "LibTorch in ${MloTorch_ROOT_DIR} is ${MloTorch_VERSION}, but mlo is built against 2.11.x.")
else()
  list(JOIN MLO_TORCH_HINTS ", " _mlo_hints)
  set(_mlo_reason "No LibTorch in Torch_DIR, Torch_ROOT, CMAKE_PREFIX_PATH, or where mlo's set-up puts one (${_mlo_hints}).")
endif()
string(APPEND _mlo_reason
  " Cure: run scripts/setup.sh of mlo's sources, which installs the right one there, or give -DCMAKE_PREFIX_PATH=<directory of LibTorch 2.11>.")

# No semicolon may stand in this message: it would be split there.
set(MloTorch_VERSION_RIGHT FALSE)
if(MloTorch_VERSION VERSION_GREATER_EQUAL 2.11 AND MloTorch_VERSION VERSION_LESS 2.12)
  set(MloTorch_VERSION_RIGHT TRUE)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(MloTorch
  REQUIRED_VARS MloTorch_ROOT_DIR MloTorch_VERSION_RIGHT
  VERSION_VAR MloTorch_VERSION
  REASON_FAILURE_MESSAGE "${_mlo_reason}")

if(MloTorch_FOUND AND NOT TARGET mlo::torch)
  add_library(mlo::c10 SHARED IMPORTED)
  set_target_properties(mlo::c10 PROPERTIES IMPORTED_LOCATION "${MloTorch_ROOT_DIR}/lib/libc10.so")
  add_library(mlo::torch_cpu SHARED IMPORTED)
  set_target_properties(mlo::torch_cpu PROPERTIES
    IMPORTED_LOCATION "${MloTorch_ROOT_DIR}/lib/libtorch_cpu.so"
    INTERFACE_LINK_LIBRARIES mlo::c10)

  add_library(mlo::torch INTERFACE IMPORTED)
  target_link_libraries(mlo::torch INTERFACE mlo::torch_cpu)
  target_compile_options(mlo::torch INTERFACE
    "SHELL:-idirafter \"${MloTorch_ROOT_DIR}/include\""
    "SHELL:-idirafter \"${MloTorch_ROOT_DIR}/include/torch/csrc/api/include\"")
  # The standard library's two string layouts do not link with each other: use the one that this LibTorch was built with.
  file(STRINGS "${MloTorch_ROOT_DIR}/lib/libc10.so" _mlo_cxx11 REGEX "NSt7__cxx1112basic_string" LIMIT_COUNT 1)
  if(_mlo_cxx11)
    target_compile_definitions(mlo::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
  else()
    target_compile_definitions(mlo::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
  endif()

  if(MloTorch_CUDA_VERSION)
    # Nothing refers to libtorch_cuda by symbol; it registers its kernels when it is loaded, so the linker must not drop it.
    add_library(mlo::torch_cuda INTERFACE IMPORTED)
    target_link_libraries(mlo::torch_cuda INTERFACE mlo::torch
      "-Wl,--push-state,--no-as-needed \"${MloTorch_ROOT_DIR}/lib/libtorch_cuda.so\" \"${MloTorch_ROOT_DIR}/lib/libc10_cuda.so\" -Wl,--pop-state")
  endif()
endif()
