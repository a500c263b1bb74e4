#include "quadratic.h"

#include <stdexcept>

namespace mlo::testing {

std::vector<Shape> shapes() {
  using Linear = LevelShape::Linear;
  std::vector<Shape> all = {
      {"two levels", {{"low", {1}}, {"top", {0}}}, {1}},
      {"two levels, no direct dependence", {{"low", {1}}, {"top", {0}, {}, false}}, {1}},
      {"chain of three", {{"low", {2}}, {"mid", {0}}, {"top", {1}}}, {2}},
      {"chain of three, no direct dependence",
       {{"low", {2}}, {"mid", {0}}, {"top", {1}, {}, false}},
       {2}},
      {"three levels, all read all below and the top",
       {{"low", {2}}, {"mid", {0, 2}}, {"top", {0, 1}}},
       {2}},
      {"chain of four", {{"a", {3}}, {"b", {0}}, {"c", {1}}, {"top", {2}}}, {3}},
      {"four levels, all read all below and the top",
       {{"a", {3}}, {"b", {0, 3}}, {"c", {0, 1, 3}}, {"top", {0, 1, 2}}},
       {3}},
      {"four levels, no direct dependence",
       {{"a", {3}}, {"b", {0, 3}}, {"c", {0, 1, 3}}, {"top", {0, 1, 2}, {}, false}},
       {3}},
      {"diamond", {{"base", {3}}, {"left", {0}}, {"right", {0}}, {"top", {1, 2}}}, {3}},
      {"diamond, no direct dependence",
       {{"base", {3}}, {"left", {0}}, {"right", {0}}, {"top", {1, 2}, {}, false}},
       {3}},
      {"two below", {{"left", {2}}, {"right", {2}}, {"top", {0, 1}}}, {2}},
      {"two on top",
       {{"low", {1, 2}},
        {"first", {0}, {}, true, Linear::none, false, false, true},
        {"second", {0}, {}, true, Linear::none, false, false, true}},
       {1, 2}},
      {"a level read by several",
       {{"base", {4}}, {"a", {0}}, {"b", {0, 4}}, {"c", {0, 1}}, {"top", {0, 2, 3}}},
       {4}},
      // Order of registration against the order of reads.
      {"chain registered upside down", {{"mid", {1}}, {"low", {2}}, {"top", {0}}}, {2}},
      {"diamond registered upside down",
       {{"right", {2, 3}}, {"left", {2}}, {"base", {3}}, {"top", {0, 1}}},
       {3}},
      {"long way and short way",
       {{"late", {1, 2}}, {"middle", {2}}, {"early", {3}}, {"top", {0, 2}}},
       {3}},
      {"a level below that does not respond",
       {{"fixed", {}}, {"low", {0, 2}}, {"top", {0, 1}}},
       {2}},
      // m sweeps over k; neither responds to the top, though the top waits for both.
      {"a sweep below the sweep", {{"k", {1}}, {"m", {0}}, {"p", {1, 3}}, {"top", {1, 2}}}, {1, 3}},
      {"unused and frozen parameters",
       {{"low", {2}, {}, true, Linear::none, true, true},
        {"mid", {0, 2}, {}, true, Linear::none, true, true},
        {"top", {0, 1}, {}, true, Linear::none, true, true}},
       {2}},
      {"linear parameters",
       {{"low", {2}, {}, true, Linear::coupled},
        {"mid", {0, 2}, {}, true, Linear::constant},
        {"top", {0, 1}}},
       {2}},
  };
  return all;
}

const Shape& shape(const std::string& name) {
  static const std::vector<Shape> all = shapes();
  for (const Shape& each : all)
    if (each.name == name) return each;
  throw std::logic_error("no shape is called " + name);
}

}  // namespace mlo::testing
