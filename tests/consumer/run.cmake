# cmake -DWHERE=… -DPROJECT=… -DCOMPILER=… [-DINSTALL=build tree of mlo] [-DOPTIONS="-D… -D…"] -P run.cmake
# Configures, builds and runs the project in WHERE/build; INSTALL: against that tree, installed to WHERE/prefix.

function(run)
  list(JOIN ARGN " " words)
  message(STATUS "${words}")
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

separate_arguments(options UNIX_COMMAND "${OPTIONS}")
if(INSTALL)
  # What an earlier run installed must not be found in place of a file that is no longer installed.
  file(REMOVE_RECURSE "${WHERE}/prefix" "${WHERE}/build")
  run("${CMAKE_COMMAND}" --install "${INSTALL}" --prefix "${WHERE}/prefix")
  list(APPEND options "-DCMAKE_PREFIX_PATH=${WHERE}/prefix")
  if(EXISTS "${INSTALL}/bin/mlomae")  # installed too, and finds its libraries
    run("${WHERE}/prefix/bin/mlomae" --version)
  endif()
endif()
run("${CMAKE_COMMAND}" -G Ninja -S "${PROJECT}" -B "${WHERE}/build" "-DCMAKE_CXX_COMPILER=${COMPILER}"
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0 ${options})
run("${CMAKE_COMMAND}" --build "${WHERE}/build" --parallel 2)
run("${WHERE}/build/consumer")
