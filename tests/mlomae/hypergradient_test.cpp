// The paper's one-step hypergradient (Eq. 9-11) against automatic differentiation through the steps
// that were taken; what it costs.
#include "functional.h"
#include "level/level.h"
#include "level/second_order.h"
#include "replay/choices.h"
#include "replay/random.h"

#include <ATen/CPUGeneratorImpl.h>

#include <set>

#include "catch.h"

using namespace mlomae;

namespace {

struct Setting {
  MaskInput input = MaskInput::held;
  bool adam = false;
  double dropout = 0.0;
  int64_t steps_before = 0;  // outer steps taken first, so that the optimizers have a past
  Selects selects = Selects::rank;
  Weighs weighs = Weighs::probability;
  Network network = Network::image;
};

ModelOptions small(double dropout) {
  ModelOptions o;
  o.image_size = 12, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2, o.decoder_dim = 8,
  o.decoder_depth = 1, o.decoder_heads = 2;
  o.dropout = dropout;
  return o;
}

Networks networks(const Setting& s) {
  torch::manual_seed(3);
  Networks n(small(s.dropout), 12, 3, s.dropout);
  if (s.network != Network::image || s.input == MaskInput::pixels || s.selects == Selects::own) {
    n.masker = Masker(MaskerOptions{.network = s.network,
                                    .patches = 9,
                                    .dim = s.input == MaskInput::pixels ? 48 : 16,
                                    .hidden = 12,
                                    .scores = s.selects == Selects::own ? 2 : 1});
    n.masker->to(at::kDouble);
  }
  n.mae->train();
  return n;
}

mlo::Batch batch(uint64_t level, int64_t i) {
  auto generator = at::detail::createCPUGenerator(mlo::stream_key(17, level, i, 0));
  return mlo::Batch({at::randn({4, 3, 12, 12}, generator, at::kDouble),
                     at::randint(0, 3, {4}, generator, at::kLong)});
}

constexpr double kRates[3] = {0.02, 0.05, 0.0};  // T stands still: its past does not matter

mlo::OptimizerFactory optimizer(const Setting& s, int level) {
  if (s.adam && level < 2)
    return mlo::adamw({.lr = kRates[level], .beta2 = 0.95, .weight_decay = 0.1});
  return mlo::sgd({.lr = kRates[level], .weight_decay = level < 2 ? 0.1 : 0.0});
}

ReconstructOptions options(const Setting& s) {
  return {.masking = {.ratio = 0.5,
                      .selects = s.selects,
                      .weighs = s.weighs,
                      .input = s.input,
                      .temperature = 0.5,
                      .floor = 0.1}};
}

std::unique_ptr<mlo::Method> duals() {
  return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver());
}

std::unique_ptr<mlo::Engine> engine(const Setting& s, Networks& n,
                                    std::unique_ptr<mlo::Method> reconstruct,
                                    std::unique_ptr<mlo::Method> classify, int64_t unroll = 1) {
  auto e = std::make_unique<mlo::Engine>(mlo::EngineOptions{.seed = 5});
  e->add("pretrain", Reconstruct(n.mae, n.masker, options(s)),
         {.optimizer = optimizer(s, 0),
          .data = [](int64_t i) { return batch(0, i); },
          .unroll = unroll,
          .best_response = std::move(reconstruct)});
  e->add("head", Classify(n.head, n.mae),
         {.optimizer = optimizer(s, 1),
          .data = [](int64_t i) { return batch(1, i); },
          .best_response = std::move(classify)});
  e->add("masker", Validate(n.masker, n.mae, n.head),
         {.optimizer = optimizer(s, 2), .data = [](int64_t i) { return batch(2, i); }});
  return e;
}

mlo::Tensors by_engine(const Setting& s, std::unique_ptr<mlo::Method> reconstruct,
                       std::unique_ptr<mlo::Method> classify) {
  Networks n = networks(s);
  const auto e = engine(s, n, std::move(reconstruct), std::move(classify));
  for (int64_t i = 0; i < s.steps_before; ++i) e->step();
  return e->hypergradient("masker");
}

enum class Fault { none, head_stands_still };

// The steps written out, and one backward through them.
mlo::Tensors by_autograd(const Setting& s, Fault fault = Fault::none) {
  const mlo::SecondOrderGuard attention(true);
  Networks n = networks(s);
  const auto e_members = functional::places(n.mae.ptr()),
             c_members = functional::places(n.head.ptr());
  const auto trained = [](const torch::nn::Module& module) {
    mlo::Tensors all;
    for (const at::Tensor& p : module.parameters())
      if (p.requires_grad()) all.push_back(p);
    return all;
  };
  mlo::Tensors e = trained(*n.mae), c = trained(*n.head);
  const mlo::Tensors t = trained(*n.masker);
  functional::Optimizer e_optimizer{.adam = s.adam, .lr = kRates[0], .decay = 0.1},
      c_optimizer{.adam = s.adam, .lr = kRates[1], .decay = 0.1};
  const auto draw = [](const char* level, int64_t step) {
    mlo::seed_generators(mlo::stream_key(5, mlo::name_key(level), step, 0));
  };
  mlo::Tensors e1, c1;
  for (int64_t i = 0; i <= s.steps_before; ++i) {
    {
      const functional::At at(e_members, e);
      draw("pretrain", i);
      mlo::Tensors choices;
      const std::string name = "pretrain";
      mlo::ChoiceTape tape(mlo::ChoiceTape::record, choices, name,
                           mlo::stream_key(5, mlo::name_key("pretrain"), i, 0));
      const at::Tensor loss = reconstruction_loss(n.mae, n.masker, options(s), batch(0, i)[0]).loss;
      mlo::Tensors g = torch::autograd::grad({loss}, e, {}, true, true, true);
      for (std::size_t k = 0; k < g.size(); ++k)
        if (!g[k].defined()) g[k] = torch::zeros_like(e[k]);
      e1 = e_optimizer.step(e, g);
    }
    {
      const functional::At at_e(e_members, e1), at_c(c_members, c);
      draw("head", i);
      const at::Tensor loss = classification_loss(n.mae, n.head, batch(1, i)).loss;
      c1 = c_optimizer.step(c, torch::autograd::grad({loss}, c, {}, true, true));
      if (fault == Fault::head_stands_still)
        for (at::Tensor& x : c1) x = x.detach();
    }
    if (i == s.steps_before) break;
    for (auto* list : {&e1, &c1})
      for (at::Tensor& x : *list) x = x.detach().requires_grad_();
    e = e1, c = c1;
  }
  const functional::At at_e(e_members, e1), at_c(c_members, c1);
  draw("masker", s.steps_before);
  return torch::autograd::grad({classification_loss(n.mae, n.head, batch(2, s.steps_before)).loss},
                               t);
}

}  // namespace

TEST_CASE("One step back through all three levels is exact", "[mlomae][hypergradient]") {
  for (const auto input : {MaskInput::held, MaskInput::coupled}) {
    for (const bool adam : {false, true}) {
      for (const double dropout : {0.0, 0.2}) {
        for (const auto selects : {Selects::rank, Selects::sampled}) {
          const Setting s{.input = input,
                          .adam = adam,
                          .dropout = dropout,
                          .steps_before = adam ? 2 : 0,
                          .selects = selects};
          INFO((input == MaskInput::held ? "held" : "coupled")
               << (adam ? ", AdamW" : ", SGD") << ", dropout " << dropout
               << (selects == Selects::rank ? ", rank" : ", sampled"));
          const mlo::Tensors expected = by_autograd(s);
          CHECK(relative(by_engine(s, mlo::one_step(), mlo::one_step()), expected) < 1e-10);
          CHECK(relative(by_engine(s, mlo::one_step({.keep_graph = false}),
                                   mlo::one_step({.keep_graph = false})),
                         expected) < 1e-10);
          // T's own layers are of operations that reverse over forward knows, so coupled inputs are
          // no obstacle.
          CHECK(relative(by_engine(s, duals(), mlo::one_step()), expected) < 1e-10);
          CHECK(relative(by_engine(s, mlo::darts(), mlo::one_step()), expected) < 1e-5);
          // Controls: a head that does not answer, products at the wrong point.
          CHECK(relative(by_autograd(s, Fault::head_stands_still), expected) > 1e-3);
          CHECK(relative(by_engine(s,
                                   mlo::implicit(mlo::exact_oracle(), mlo::identity_solver(),
                                                 mlo::EvaluationPoint::after_step),
                                   mlo::one_step()),
                         expected) > 1e-6);
        }
      }
    }
  }
}

TEST_CASE("One step back is exact for every way to select and to weigh, and every network",
          "[mlomae][hypergradient]") {
  std::vector<Setting> settings;
  for (const auto weighs :
       {Weighs::normalized, Weighs::straight_through, Weighs::softmax, Weighs::bounded})
    settings.push_back(
        {.adam = true, .steps_before = 2, .selects = Selects::uniform, .weighs = weighs});
  for (const auto input : {MaskInput::held, MaskInput::coupled, MaskInput::pixels})
    for (const auto network :
         {Network::image, Network::convolution, Network::attention, Network::positions})
      settings.push_back({.input = input,
                          .selects = Selects::sampled,
                          .weighs = Weighs::bounded,
                          .network = network});
  for (const auto weighs : {Weighs::alike, Weighs::bounded})
    settings.push_back({.input = MaskInput::pixels,
                        .selects = Selects::own,
                        .weighs = weighs,
                        .network = Network::convolution});
  for (const Setting& s : settings) {
    INFO("input " << static_cast<int>(s.input) << ", selects " << static_cast<int>(s.selects)
                  << ", weighs " << static_cast<int>(s.weighs) << ", network "
                  << static_cast<int>(s.network));
    const mlo::Tensors expected = by_autograd(s);
    CHECK(relative(by_engine(s, mlo::one_step(), mlo::one_step()), expected) < 1e-10);
    CHECK(relative(by_autograd(s, Fault::head_stands_still), expected) > 1e-3);
    // Convolutions, layer norms and softmax are no obstacle where the encoder does not pass through
    // them.
    if (s.input == MaskInput::coupled &&
        (s.network == Network::convolution || s.network == Network::attention))
      CHECK_THROWS_AS(by_engine(s, duals(), mlo::one_step()), mlo::UnsupportedError);
    else
      CHECK(relative(by_engine(s, duals(), mlo::one_step()), expected) < 1e-10);
  }
}

TEST_CASE("In float32 at the demo's size the hypergradient points where it does in double",
          "[mlomae][hypergradient]") {
  ModelOptions o = model_size("micro");
  o.image_size = 28, o.channels = 1, o.patch = 4;
  const auto hypergradient = [&](at::ScalarType type) {
    torch::manual_seed(1);
    Networks n(o, 512, 10, 0.0, at::kFloat);  // the same draws for both, then converted
    n.mae->to(type), n.masker->to(type), n.head->to(type);
    torch::manual_seed(2);
    const auto images = [&](int64_t) {
      return mlo::Batch({torch::randn({16, 1, 28, 28}).to(type), torch::randint(0, 10, {16})});
    };
    mlo::Engine e({.seed = 1});
    ReconstructOptions reconstruct{.masking = {.ratio = 0.75, .selects = Selects::rank}};
    e.add("pretrain", Reconstruct(n.mae, n.masker, reconstruct),
          {.optimizer = mlo::adamw({.lr = 1e-3, .beta2 = 0.95}),
           .data = images,
           .best_response = duals()});
    e.add("head", Classify(n.head, n.mae),
          {.optimizer = mlo::adamw({.lr = 1e-3, .beta2 = 0.95}),
           .data = images,
           .best_response = mlo::one_step()});
    e.add("masker", Validate(n.masker, n.mae, n.head),
          {.optimizer = mlo::sgd({.lr = 0.0}), .data = images});
    for (int i = 0; i < 2; ++i) e.step();
    return e.hypergradient("masker");
  };
  const double c = cosine(hypergradient(at::kFloat), hypergradient(at::kDouble));
  INFO("cosine " << c);
  CHECK(c > 0.999);
}

TEST_CASE("An outer step passes as often as the documentation says", "[mlomae][counters]") {
  for (const bool shared : {true, false}) {
    const Setting s{};
    Networks n = networks(s);
    const auto e = engine(s, n, duals(), mlo::one_step({.keep_graph = shared}), /*unroll=*/2);
    e->step();
    const auto before = [&](const char* level) { return e->counters(level); };
    const mlo::Counters p = before("pretrain"), h = before("head"), m = before("masker");
    e->step();
    const auto forwards = [&](const char* level, const mlo::Counters& then) {
      return e->counters(level).forwards - then.forwards;
    };
    const auto backwards = [&](const char* level, const mlo::Counters& then) {
      return e->counters(level).backwards - then.backwards;
    };
    // Reconstruction: two steps, and one evaluation on dual numbers whose backward reaches T only.
    CHECK(e->counters("pretrain").steps - p.steps == 2);
    CHECK(forwards("pretrain", p) == 3);
    CHECK(backwards("pretrain", p) == 3);
    CHECK(e->counters("pretrain").mixed_products - p.mixed_products == 1);
    // Head: its step's forward serves the mixed product, too; its backward ends at the head, that
    // of the product goes through the encoder.
    CHECK(forwards("head", h) == (shared ? 1 : 2));
    CHECK(backwards("head", h) == (shared ? 2 : 3));
    CHECK(e->counters("head").mixed_products - h.mixed_products == 1);
    // Validation: one of each. Together the encoder passes 2F + 2B over all patches when the
    // forward is shared.
    CHECK(forwards("masker", m) == 1);
    CHECK(backwards("masker", m) == 1);
  }
}

TEST_CASE("The last block computes the class token alone where only that is read",
          "[mlomae][counters]") {
  Networks n(small(0.0), 12, 3);
  const at::Tensor images = torch::randn({4, 3, 12, 12}, at::kDouble);
  // Tokens that go through the GELU of each block's MLP, from the last block to the first.
  const auto tokens = [](const at::Tensor& out) {
    std::vector<int64_t> found;
    std::vector<torch::autograd::Node*> open = {out.grad_fn().get()};
    std::set<torch::autograd::Node*> seen;
    while (!open.empty()) {
      torch::autograd::Node* node = open.back();
      open.pop_back();
      if (!node || !seen.insert(node).second) continue;
      if (node->name().starts_with("GeluBackward"))
        found.push_back(
            node->input_metadata(0).shape_as_dim_vector()[1].guard_int(__FILE__, __LINE__));
      for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
    }
    std::sort(found.begin(), found.end());
    return found;
  };
  CHECK(tokens(n.mae->features(images)) == std::vector<int64_t>{1, 10});
  CHECK(tokens(n.mae->tokens(images)) == std::vector<int64_t>{10, 10});
  CHECK((n.mae->features(images) - n.mae->tokens(images).select(1, 0)).abs().max().item<double>() <
        1e-13);
}

TEST_CASE("With gradients to the masker alone, no activation of the encoder or decoder is kept",
          "[mlomae][counters]") {
  // What keeps activations is the graph: with gradients to T only it is T's.
  Networks n(small(0.0), 12, 3);
  const at::Tensor images = torch::randn({4, 3, 12, 12}, at::kDouble);
  const auto nodes = [&](bool encoder) {
    for (const at::Tensor& p : n.mae->parameters()) p.set_requires_grad(encoder);
    const at::Tensor loss = reconstruction_loss(n.mae, n.masker, options({}), images).loss;
    std::vector<torch::autograd::Node*> open = {loss.grad_fn().get()};
    std::set<torch::autograd::Node*> seen;
    while (!open.empty()) {
      torch::autograd::Node* node = open.back();
      open.pop_back();
      if (!node || !seen.insert(node).second) continue;
      for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
    }
    return seen.size();
  };
  const std::size_t with = nodes(true), without = nodes(false);
  CHECK(without < 20);
  CHECK(with > 100);
}
