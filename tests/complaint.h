#pragma once

#include "mlo/error.h"

#include <string>

#include "catch.h"

/// The message of the Failure that `call` throws; another exception, or none, fails the test.
template <class Failure = mlo::Error, class Call>
std::string complaint(const Call& call) {
  try {
    call();
  } catch (const Failure& error) {
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
