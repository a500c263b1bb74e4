#pragma once

#include <stdexcept>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

/// Base of everything this library throws on misuse. The message says what was given, what was
/// expected and what to do.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A problem, level, engine or option that cannot work; thrown by constructors, `Engine::add` and
/// `Engine::build`.
class ConfigError : public Error {
  using Error::Error;
};

/// A method that cannot do what the graph, the optimizer or the loss needs. The message names both
/// and the ways out.
class UnsupportedError : public Error {
  using Error::Error;
};

/// What a loss did that it must not do: wrong shape or dtype, detached, changed on replay, wrote
/// parameters, failed in LibTorch.
class LossError : public Error {
  using Error::Error;
};

/// Infinite or not-a-number: says at which level, at which step, in which quantity.
class NonFiniteError : public Error {
  using Error::Error;
};

/// A checkpoint that cannot be written, read or applied. The engine's state is as it was before the
/// call.
class CheckpointError : public Error {
  using Error::Error;
};

}  // namespace mlo
#pragma GCC visibility pop
