# Writes commit.h, if it has changed: cmake -DSOURCE= -DBUILD= -DOUTPUT= -P commit.cmake
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty OUTPUT_VARIABLE commit
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#pragma once\n\ninline constexpr const char* kCommit = \"${commit}\";\ninline constexpr const char* kBuild = \"${BUILD}\";\n")
