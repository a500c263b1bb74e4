#include "mlomae/config/methods.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"

namespace mlomae {

const std::vector<Method>& methods() {
  static const std::vector<Method> all = {
      {"mlo-mae", 3, Masks::learned, true, false, "masks learned"},
      {"mae", 1, Masks::uniform, false, false, "uniform masks"},
      {"u-mae", 1, Masks::uniform, false, true, "and uniformity"},
      {"sup-mae", 1, Masks::uniform, true, false, "and labels"},
      {"oracle", 1, Masks::known, false, false, "masks and weights from the images' maps"},
      {"blo-mae", 2, Masks::learned, true, false, "two levels instead of three"},
      {"fixed", 1, Masks::as_initialized, false, false, "the masker as initialized"}};
  return all;
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const Method& method : methods()) names.push_back(method.name);
  return names;
}

const Method& method_of(const Settings& settings) {
  for (const Method& method : methods())
    if (method.name == settings.run.method) return method;
  refuse("run.method = '{}'; it must be one of {}", abridged(settings.run.method),
         listed(method_names()));
}

}  // namespace mlomae
