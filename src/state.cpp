#include "mlo/state.h"

#include "mlo/error.h"

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
    throw CheckpointError(
        "the state has no '" + key + "' (" + kTypes[Type] +
        " is expected there); it was saved with other levels or by another version of the program: "
        "resume "
        "with the levels, sources and optimizers that the checkpoint was made with");
  if (found->second.index() != Type)
    throw CheckpointError("'" + key + "' in the state is " + kTypes[found->second.index()] +
                          ", expected " + kTypes[Type] +
                          "; it was saved by something else under the same name: resume with the "
                          "program that saved it");
  return std::get<Type>(found->second);
}

}  // namespace

void State::set(const std::string& key, Value value) {
  if (!values_.emplace(key, std::move(value)).second)
    throw CheckpointError("the state has '" + key +
                          "' already; give each object that is saved a prefix of its own");
}

int64_t State::integer(const std::string& key) const { return get<0>(values_, key); }
double State::real(const std::string& key) const { return get<1>(values_, key); }
const std::string& State::text(const std::string& key) const { return get<2>(values_, key); }
const at::Tensor& State::tensor(const std::string& key) const { return get<3>(values_, key); }

}  // namespace mlo
