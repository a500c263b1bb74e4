#include "mlo/state.h"

#include "mlo/error.h"
#include "text.h"

#include <array>
#include <utility>

namespace mlo {
namespace {

constexpr std::array<const char*, 4> kTypes = {"an integer", "a real", "a text",
                                               "a tensor"};  // as in State::Value

template <std::size_t Type>
const auto& get(const std::map<std::string, State::Value>& values, const std::string& key) {
  const auto found = values.find(key);
  if (found == values.end())
    refuse<CheckpointError>(
        "the state has no {} ({} is expected there); it was saved with other levels or by "
        "another version of the program: resume with the levels, sources and optimizers that the "
        "checkpoint was made with",
        quoted(key), kTypes[Type]);
  if (found->second.index() != Type)
    refuse<CheckpointError>(
        "{} in the state is {}, expected {}; it was saved by something else under the same name: "
        "resume with the program that saved it",
        quoted(key), kTypes[found->second.index()], kTypes[Type]);
  return std::get<Type>(found->second);
}

}  // namespace

void State::set(const std::string& key, Value value) {
  if (!values_.emplace(key, std::move(value)).second)
    refuse<CheckpointError>(
        "the state has {} already; give each object that is saved a prefix of its own",
        quoted(key));
}

int64_t State::integer(const std::string& key) const { return get<0>(values_, key); }
double State::real(const std::string& key) const { return get<1>(values_, key); }
const std::string& State::text(const std::string& key) const { return get<2>(values_, key); }
const at::Tensor& State::tensor(const std::string& key) const { return get<3>(values_, key); }

}  // namespace mlo
