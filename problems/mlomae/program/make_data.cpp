#include "mlomae/data/make_data.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/program/commands.h"
#include "mlomae/program/progress_line.h"
#include "mlomae/run/record.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace mlomae {
namespace {

int make(const ObjectOnGround& asked, bool json) {
  const nlohmann::ordered_json record = make_data(asked, versions(), progress_line("images"));
  for (const auto& notice : record["notices"]) print(stderr, "note: {}", notice.get<std::string>());
  if (json) {
    print(stdout, "{}", json_text(record));
    return 0;
  }
  const bool idx = record["layout"] == "idx";
  print(stdout,
        "{}: {} training images and {} test images of {} × {} pixels, with maps; next:  mlomae "
        "pretrain --preset micro --method mae --data {} --set data.maps={} --out run",
        asked.out.string(), record["train"].get<int64_t>(), record["test"].get<int64_t>(),
        asked.size, asked.size, (idx ? asked.out : asked.out / "images").string(),
        (idx ? asked.out : asked.out / "maps").string());
  return 0;
}

}  // namespace

void add_make_data(CLI::App& app, Action& chosen) {
  struct Arguments {
    ObjectOnGround asked;
    bool json = false;
  };
  CLI::App* command = app.add_subcommand(
      "make-data",
      "\"object on ground\": images of objects at random places on grounds that say nothing of "
      "them, with a map of where the object lies");
  const auto arguments = std::make_shared<Arguments>();
  ObjectOnGround& asked = arguments->asked;
  command
      ->add_option("--objects", asked.objects,
                   "the objects: a folder as for --data of pretrain, with a test part")
      ->required();
  command
      ->add_option("--ground", asked.ground,
                   "what they lie on:\n"
                   "  noise: of amplitude 1/f\n"
                   "  stripes: of one direction, and a little noise\n"
                   "  clutter: pieces of objects\n"
                   "  photographs: parts of the images in --photographs")
      ->required()
      ->check(CLI::IsMember(grounds()));
  command->add_option("--photographs", asked.photographs,
                      "folder with photographs, at any depth; every fifth is for test images");
  command->add_option("--out", asked.out, "folder for the set, which is not there or empty")
      ->required();
  command->add_option("--size", asked.size, "side of an image, in pixels")->capture_default_str();
  command->add_option("--object", asked.object, "side of an object")->capture_default_str();
  command->add_option("--train", asked.train, "training images, each class alike; 0: all objects")
      ->capture_default_str();
  command->add_option("--test", asked.test, "test images, likewise")->capture_default_str();
  command
      ->add_option("--cut", asked.cut,
                   "box: an object's whole square is pasted; shape: its pixels of 16 or more, for "
                   "objects on black")
      ->check(CLI::IsMember({"box", "shape"}))
      ->capture_default_str();
  command->add_option("--seed", asked.seed, "another one for other places and grounds")
      ->check(CLI::Range(-INT64_MAX, INT64_MAX - 1))  // what is larger would be cut to the largest
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "print make-data.json, which is in the folder too");
  command->footer(
      "Example:  mlomae make-data --objects fashion-mnist --ground noise --out on-noise\n"
      "The same call writes the same bytes.");
  command->callback([arguments, &chosen] {
    chosen = [arguments] { return make(arguments->asked, arguments->json); };
  });
}

}  // namespace mlomae
