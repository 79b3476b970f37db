#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/train.hpp"
#include "halftone/data/dataset.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace {

void add_run(CLI::App& app, Recipe& r) {
  app.add_option("--net", r.net, "the net to train, FILE.onnx or one that `halftone info` lists");
  app.add_option("--data", r.data, "digits (drawn, needs no files), " + data_spellings());
  app.add_option("--epochs", r.epochs, "counted from the start of training")
      ->check(whole(1, 1e6))
      ->capture_default_str();
  app.add_option("--test-every", r.test_every, "epochs from test to test; the last is tested too")
      ->check(whole(1, 1e6))
      ->capture_default_str();
  app.add_flag("--views,!--no-views", r.views, "the last test adds up six views: mirrored, shifted by a pixel");
  app.add_option("--batch", r.batch, "images a step")->check(whole(1, 1e9))->capture_default_str();
}

void add_optimizer(CLI::App& app, Recipe& r) {
  app.add_option_function<std::string>(
         "--optimizer",
         [&r](const std::string& name) {
           r.nesterov &= name == r.optimizer;  // a recipe's goes with the recipe's optimizer
           r.optimizer = name;
         },
         optimizer_names())
      ->default_str(r.optimizer);
  app.add_option("--lr", r.learning_rate, "peak learning rate [sgd 0.05, others 0.001]")->check(positive());
  app.add_option("--momentum", r.momentum, "where the optimizer has one [sgd 0.9]")->check(within(0, 0.999999));
  app.add_flag("--nesterov,!--no-nesterov", r.nesterov, "Nesterov's momentum");
  app.add_option("--weight-decay", r.weight_decay, "[sgd 5e-4, adamw 0.01, others their own]")->check(within(0, 1e6));
  app.add_option_function<std::string>(
         "--no-decay", [&r](const std::string&) { r.decay_vectors = false; },
         "norms,biases: both are left out of the weight decay")
      ->check(CLI::IsMember({"norms,biases"}));
  app.add_option("--vector-lr", r.vector_rate, "factor on the rate of norms and biases; divides their weight decay")
      ->check(positive());
  app.add_option(
         "--freeze", r.freeze,
         "SCOPE: stays as it is, batch norm's statistics too;\nSCOPE:EPOCHS: so long its parameters are trained")
      ->allow_extra_args(false);
  app.add_option("--schedule", r.schedule,
                 "constant, step:EPOCH,EPOCH..:FACTOR, cosine, one_cycle[:RISE:START:END], linear or exponential:END")
      ->capture_default_str();
  app.add_option("--warmup", r.warmup, "epochs of linear rise that come first")->check(within(0, 1e6));
  app.add_option("--label-smoothing", r.label_smoothing, "share of the target spread over all classes")
      ->check(within(0, 0.999999));
  app.add_option_function<std::string>(
         "--class-weights",
         [&r](const std::string& text) {
           r.class_weights.clear();
           for (const std::string_view part : parts(text, ',')) {
             if (const std::string bad = positive()(std::string(part)); !bad.empty())
               fail(fmt::format("--class-weights {}: {}", text, bad));
             r.class_weights.push_back(static_cast<float>(*parse_number(part)));
           }
         },
         "W0,W1,..: of the classes in the loss, one each [all 1]")
      ->type_name("W,W..");
  app.add_option("--ema", r.average_decay, "evaluates averaged weights; the average's decay")
      ->check(within(0, 0.999999));
  app.add_option("--lookahead", r.lookahead, "with --ema: every so many steps the weights become the average")
      ->check(whole(0, 1e6));
}

void add_beginning(CLI::App& app, TrainSettings& s) {
  app.add_option("--init-from", s.init_from,
                 "folder of a checkpoint, or .safetensors file: where weights and statistics begin");
  app.add_flag("--new-head", s.new_head, "the last layer begins anew, for other classes than --init-from's or --net's");
}

void add_augmentation(CLI::App& app, Recipe& r) {
  app.add_option("--crop", r.crop, "pads by so many pixels, then crops at random")->check(whole(0, 1e4));
  app.add_flag("--reflect,!--no-reflect", r.reflect,
               "with --crop: the padding is the image reflected at its border, not the mean");
  app.add_flag("--flip,!--no-flip", r.flip, "mirrors half of the images");
  app.add_flag("--alternate,!--no-alternate", r.alternate,
               "with --flip: mirrors each image in every other epoch, not at random");
  app.add_option("--whiten", r.whiten, "scope of a convolution whose weights whiten the images' patches");
  app.add_option("--cutout", r.cutout, "blanks a square of this side")->check(whole(0, 1e4));
}

void add_numerics(CLI::App& app, TrainSettings& s) {
  app.add_option("--loss-scale", s.loss_scale, "none, a number, dynamic or dynamic:INITIAL [the precision's own]");
  app.add_option("--stress", s.stress, "multiplies the gradient at the loss and divides it out again")
      ->check(positive());
  app.add_option("--accumulate", s.accumulate, "batches a step")->check(whole(1, 1e6))->capture_default_str();
  app.add_option("--clip-norm", s.clip_norm, "greatest norm of the gradients; 0: no clipping")->check(within(0, 1e30));
  app.add_option("--seed", s.seed, "of weights, order and augmentation")
      ->check(within(0, 0x1p63))
      ->capture_default_str();
}

void add_places(CLI::App& app, TrainSettings& s) {
  add_data_options(app, s.data);
  app.add_option("--limit", s.data.limit, "only the first so many training images; 0: all")->check(whole(0, 1e12));
  app.add_option("--workers", s.workers, "threads that make batches")->check(whole(0, 256))->capture_default_str();
}

void add_files(CLI::App& app, TrainSettings& s) {
  app.add_option("--out", s.out, "folder for the checkpoint, written after every epoch; one training at a time");
  app.add_flag("--keep-best", s.keep_best, "keeps the model of the best test accuracy so far in OUT/best");
  app.add_option("--resume", s.resume, "folder of a checkpoint to continue from");
  app.add_flag("--convert", s.convert, "the checkpoint to continue from may be of another precision");
  app.add_option("--capsule", s.capsule,
                 "folder for the step that goes wrong, else the last one; `replay` does it again");
  app.add_option("--patience", s.patience, "epochs without a better test accuracy that end the run; 0: none do")
      ->check(whole(0, 1e6));
  app.add_option("--tensorboard", s.tensorboard, "folder for an event file with a step's and an epoch's numbers");
  app.add_option("--trace", s.trace, "CSV file with one row a step; a resume goes on in it");
  app.add_option("--json", s.json, "JSON file with the results");
}

/// The options that were given and say what is trained, not where it lies or runs.
std::vector<std::string> words_of(const CLI::App& app) {
  const std::vector<std::string> left_out = {"--data-dir", "--limit",     "--workers",  "--out",      "--keep-best",
                                             "--resume",   "--convert",   "--trace",    "--json",     "--capsule",
                                             "--threads",  "--init-from", "--new-head", "--patience", "--tensorboard"};
  std::vector<std::string> words;
  for (const CLI::Option* option : app.get_options()) {
    if (std::find(left_out.begin(), left_out.end(), option->get_name()) != left_out.end()) continue;
    for (const std::string& value : option->results())
      words.push_back(fmt::format("--{}={}", option->get_lnames()[0], data_name(value)));
  }
  return words;
}

}  // namespace

void TrainSettings::add_shared(CLI::App& app) {
  // The first option that is defined acts first, wherever it stands: options given beside a recipe win.
  app.add_option_function<std::string>(
      "--recipe", [this](const std::string& name) { recipe = recipe_by_name(name); },
      "a named set of defaults for all that follows");
  add_run(app, recipe);
  add_optimizer(app, recipe);
  add_beginning(app, *this);
  add_augmentation(app, recipe);
  add_numerics(app, *this);
  device.add_to(app);
  add_places(app, *this);
}

void TrainSettings::add_system(CLI::App& app) {
  app.add_option("--precision", recipe.precision, "the number system")->capture_default_str();
  app.add_option("--keep", keep, "ROLE=PRECISION or SCOPE=PRECISION: stored as in another number system")
      ->allow_extra_args(false);
  app.add_option("--range-steps", range_steps, "of a first training that only finds ranges [dynamic_fixed 200]")
      ->check(whole(0, 1e9));
  app.add_flag("--notice", notice, "counts zeros, flushed, saturated and unchanged numbers of every tensor for --json");
}

void add_train(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("train", "trains a net and evaluates it after every epoch");
  auto settings = std::make_shared<TrainSettings>();
  settings->add_shared(*sub);
  settings->add_system(*sub);
  add_files(*sub, *settings);
  sub->callback([settings, sub, &command] {
    settings->words = words_of(*sub);
    for (const std::string& what : settings->keep) settings->recipe.precision += "+" + what;
    command = [settings] { return train(*settings); };
  });
}

}  // namespace halftone::cli
