# What every target of this project is compiled with: LibTorch, with its CUDA half or not, warnings, sanitizers, one precompiled
# header. Nothing here is CUDA code: no toolkit is needed, and one build serves machines with and without a GPU.
#
#   mlo_target(target)   call it once for every library and executable; gives it C++20, warnings, sanitizers and the
#                        precompiled header src/precompiled.h. Nothing of it reaches consumers.

# --- LibTorch, with its CUDA half or not -----------------------------------------------------------------------------------------

set(MLO_TORCH_HINTS "${PROJECT_SOURCE_DIR}/.deps/venv")
find_package(MloTorch MODULE REQUIRED)
find_package(Threads REQUIRED)

if(NOT MLO_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MLO_CUDA is '${MLO_CUDA}'; it must be AUTO, ON or OFF.")
endif()
set(MLO_WITH_CUDA OFF)
set(mlo_why "MLO_CUDA=OFF")
if(NOT MLO_CUDA STREQUAL "OFF")
  if(NOT MloTorch_CUDA_VERSION)
    set(mlo_why "this LibTorch has no CUDA libraries")
  else()
    # libtorch_cuda names what it loads; a LibTorch put there for CPU use lacks those libraries and would fail at the first link.
    find_library(mlo_cudnn NAMES libcudnn.so.9 cudnn NO_CACHE
      PATHS "${MloTorch_ROOT_DIR}/lib" "${MloTorch_ROOT_DIR}/../nvidia/cudnn/lib")
    if(mlo_cudnn)
      set(MLO_WITH_CUDA ON)
    else()
      set(mlo_why "the libraries that LibTorch's CUDA half loads (cuDNN among them) are not there; cure: MLO_CUDA=ON scripts/setup.sh")
    endif()
  endif()
  if(MLO_CUDA STREQUAL "ON" AND NOT MLO_WITH_CUDA)
    message(FATAL_ERROR "MLO_CUDA=ON, but ${mlo_why}.")
  endif()
endif()
if(PROJECT_IS_TOP_LEVEL)
  if(MLO_WITH_CUDA)
    message(STATUS "mlo: with LibTorch's CUDA ${MloTorch_CUDA_VERSION}")
  else()
    message(STATUS "mlo: CPU only (${mlo_why})")
  endif()
endif()

# --- Compiler --------------------------------------------------------------------------------------------------------------------

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(MLO_CCACHE ccache)
  mark_as_advanced(MLO_CCACHE)
  if(MLO_CCACHE)
    # What ccache wants before it trusts a precompiled header. The header itself is cached too.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${MLO_CCACHE})
  endif()
endif()

# Private to this project's own targets.
add_library(mlo_build INTERFACE)
target_compile_features(mlo_build INTERFACE cxx_std_20)
# One precompiled header serves libraries and programs only if both are compiled with the same flags: always -fPIC.
target_compile_options(mlo_build INTERFACE -fPIC)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(mlo_build INTERFACE -fpch-preprocess)
endif()
if(MLO_DEVELOPER)
  target_compile_options(mlo_build INTERFACE
    -Wall -Wextra -Wpedantic -Wnon-virtual-dtor -Woverloaded-virtual -Wold-style-cast -Wfloat-conversion -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Of shadowing, only that of locals: `Classify(Head head) : head(head) {}` is an idiom here. What the optimizer guesses about
    # code inlined from the standard library and ATen is worth seeing, not worth stopping for; of "maybe" not even that.
    target_compile_options(mlo_build INTERFACE
      -Wshadow=local
      -Wno-maybe-uninitialized -Wno-error=stringop-overflow -Wno-error=array-bounds -Wno-error=restrict -Wno-error=free-nonheap-object)
    if(CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
      target_compile_options(mlo_build INTERFACE -Wno-dangling-reference)
    endif()
  else()
    target_compile_options(mlo_build INTERFACE -Wshadow)
  endif()
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT MLO_DEVELOPER)
  # The same guesses, at -O3, are nothing that whoever builds the library could act on.
  target_compile_options(mlo_build INTERFACE -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict -Wno-free-nonheap-object)
endif()
if(MLO_SANITIZE)
  target_compile_options(mlo_build INTERFACE -fsanitize=${MLO_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(mlo_build INTERFACE -fsanitize=${MLO_SANITIZE})
endif()

if(MLO_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "MLO_FUZZ=ON needs clang, which libFuzzer is a part of, and the compiler is ${CMAKE_CXX_COMPILER_ID}: use the preset fuzz")
  endif()
  # LibTorch's own libraries are not instrumented, and have no type information for these two.
  target_compile_options(mlo_build INTERFACE -fsanitize=fuzzer-no-link -fno-sanitize=vptr,function)
  target_compile_definitions(mlo_build INTERFACE FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
endif()

# The precompiled header's own target. Its flags must be those of its users: Threads adds none, and LibTorch's are its own.
add_library(mlo_precompiled OBJECT EXCLUDE_FROM_ALL "${PROJECT_SOURCE_DIR}/src/precompiled.cpp")
target_link_libraries(mlo_precompiled PRIVATE mlo_build mlo::torch)
target_precompile_headers(mlo_precompiled PRIVATE "${PROJECT_SOURCE_DIR}/src/precompiled.h")

function(mlo_target target)
  # Through BUILD_INTERFACE, so that a static mlo does not export it.
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:mlo_build>)
  get_target_property(visibility ${target} CXX_VISIBILITY_PRESET)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND visibility STREQUAL "hidden")
    # clang, unlike g++, wants the same visibility in the precompiled header.
    target_precompile_headers(${target} PRIVATE "${PROJECT_SOURCE_DIR}/src/precompiled.h")
  else()
    target_precompile_headers(${target} REUSE_FROM mlo_precompiled)
  endif()
endfunction()

# Under CMAKE_UNITY_BUILD the sources of one folder are compiled together, so that what must not have the same name in two of
# them does not hang on how many there are.
function(mlo_unity_by_room target)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    cmake_path(GET source PARENT_PATH room)
    if(room AND NOT IS_ABSOLUTE "${source}")
      set_source_files_properties("${source}" PROPERTIES UNITY_GROUP "${room}")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
endfunction()
