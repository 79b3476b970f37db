// halftone_peer_load lenet5|resnet18 MODEL IMAGES OUT [krsc]: reads a model that PyTorch saved, under torchvision's
// names, writes the logits of the images to OUT/logits.safetensors and saves the net as Halftone does. With `krsc` it
// takes the file's layout for ours, which is wrong.
#include <iostream>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

using Rules = std::vector<std::pair<std::string, std::string>>;

std::string renamed(std::string name, const Rules& rules) {
  for (const auto& [ours, theirs] : rules)
    if (const std::size_t at = name.find(ours); at != std::string::npos) name.replace(at, ours.size(), theirs);
  return name;
}

void run(const std::string& name, const char* model, const char* images_file, const std::filesystem::path& out,
         Layout layout) {
  const Rules rules = name == "lenet5" ? Rules{{"dense", "fc"}}
                                       : Rules{{"shortcut.conv1", "downsample.0"},
                                               {"shortcut.norm1", "downsample.1"},
                                               {"stage", "layer"},
                                               {".block", "."},
                                               {"norm", "bn"},
                                               {"dense1", "fc"}};
  const SafeTensors file = read_safetensors(images_file);
  const StoredTensor& images = file.at("images");
  Graph graph;
  const Value in = graph.input("images", {images.shape[0], images.shape[1], images.shape[2], images.shape[3]});
  const Value logits = net_by_name(name).build(in, 10);
  const Value labels = graph.input("labels", {images.shape[0], 1, 1, 1}, DType::i32);
  Trainer trainer(cross_entropy(logits, labels), {.device = cpu_device()});
  const LoadReport report =
      load_model(model, trainer.parameters(),
                 {.layout = layout, .flatten = FlattenOrder::chw, .name = [&](const std::string& ours) {
                    return renamed(ours, rules);
                  }});
  for (const std::string& unread : report.unread) std::cout << "unread " << unread << '\n';
  Predictor predict(logits, trainer);
  const std::vector<float> values = predict(images.data);
  const auto bytes = std::as_bytes(std::span(values));
  trainer.save(out);
  const StoredTensor result[] = {{"logits", DType::f32, {images.shape[0], 10}, {bytes.begin(), bytes.end()}}};
  write_safetensors(out / "logits.safetensors", result);
}

}  // namespace
}  // namespace halftone

int main(int argc, char** argv) try {
  using halftone::Layout;
  if (argc < 5) {
    std::cerr << "usage: halftone_peer_load lenet5|resnet18 MODEL IMAGES OUT [krsc]\n";
    return 2;
  }
  halftone::run(argv[1], argv[2], argv[3], argv[4], argc > 5 ? Layout::krsc : Layout::kcrs);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
