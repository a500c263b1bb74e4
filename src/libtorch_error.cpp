#include "libtorch_error.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>
#include <typeinfo>

namespace mlo {
namespace {

constexpr std::string_view kMemory =
    "a smaller batch with more micro-batches (LevelOptions::accumulate) computes the same step in "
    "less memory";
// Where LibTorch's text names the cause only, or another language's cure.
constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kCures = {{
    {"more than 1 value per channel",
     "batch norm needs more than one row in training: choose a batch size that leaves no single "
     "row over, let the source leave out an epoch's last batch (TensorSourceOptions::drop_last), "
     "or put the norm into eval mode"},
    {"does not require grad",
     "a gradient is taken of, or by, a tensor without a graph: call requires_grad_() on the input "
     "it is taken by, and remove detach() and no-grad blocks on the way"},
    {"appears to not have been used in the graph",
     "a gradient is taken by a tensor that the value does not depend on"},
    {"nference tensor",
     "a tensor was made under c10::InferenceMode, which no gradient can pass; make it outside, or "
     "clone() it there"},
    {"out of memory", kMemory},
    {"allocate memory", kMemory},
    {"on the same device", "move the modules and the batches to one device"},
    {"without overflow",
     "a number (a learning rate, what an optimizer makes of it, a factor) is larger than the type "
     "of the tensors holds; make it smaller"},
    {"meta tensor", "a tensor lies on the meta device and has no values; make it on a real one"},
}};

void erase_between(std::string& text, std::string_view begin, std::string_view end) {
  const auto from = text.find(begin);
  if (from == std::string::npos) return;
  const auto to = text.find(end, from + begin.size());
  text.erase(from, to == std::string::npos ? to : to + end.size() - from);
}

}  // namespace

bool is_libtorch(const std::exception& error) {
  if (dynamic_cast<const c10::Error*>(&error)) return true;
  // A number that a type does not hold is thrown as a plain runtime_error.
  const std::string_view text = typeid(error) == typeid(std::runtime_error) ? error.what() : "";
  return text.starts_with("value cannot be converted to type ") &&
         text.ends_with("without overflow");
}

std::string words_of(const std::exception& error) {
  const auto* own = dynamic_cast<const c10::Error*>(&error);
  std::string text = own ? own->what_without_backtrace() : error.what();
  erase_between(text, " at \"",
                ", please report a bug to PyTorch.");  // INTERNAL ASSERT FAILED at "….cpp":12, …
  erase_between(text, "[enforce fail at ", "] ");
  text.erase(0, text.find_first_not_of(" \n"));
  text.resize(std::min(text.size(), text.find('\n')));
  constexpr std::size_t kEnough = 240;
  if (text.size() > kEnough) {
    const auto sentence = text.rfind(". ", kEnough);
    text = sentence != std::string::npos
               ? text.substr(0, sentence)
               : message("{} …", text.substr(0, text.rfind(' ', kEnough)));
  }
  while (!text.empty() && (text.back() == '.' || text.back() == ' ')) text.pop_back();
  for (const auto& [cause, cure] : kCures)
    if (text.find(cause) != std::string::npos) return message("{}; {}", text, cure);
  return text;
}

}  // namespace mlo
