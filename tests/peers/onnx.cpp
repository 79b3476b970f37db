// halftone_peer_onnx FILE IMAGES OUT: reads a net from an ONNX file and writes to OUT the logits of the images
// (logits.safetensors), the net again (again.onnx), and what one step of training makes of it (trained.onnx and
// trained.safetensors, its logits).
#include <iostream>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

void run(const char* model, const char* images_file, const std::filesystem::path& out) {
  const SafeTensors file = read_safetensors(images_file);
  const StoredTensor& images = file.at("images");
  const Net net = read_onnx(model);
  const std::int64_t n = images.shape[0];
  Graph graph;
  const Value in = graph.input("images", {n, images.shape[1], images.shape[2], images.shape[3]});
  const Value logits = net.build(in, net.classes);
  const Value labels = graph.input("labels", {n, 1, 1, 1}, DType::i32);
  Trainer trainer(cross_entropy(logits, labels), {.device = cpu_device(), .schedule = Schedule::constant(0.01f)});
  Predictor predict(logits, trainer);
  make_folder(out);
  const auto write = [&](const std::string& name, const std::string& again) {
    const std::vector<float> values = predict(images.data);
    const auto bytes = std::as_bytes(std::span(values));
    const StoredTensor result[] = {{"logits", DType::f32, {n, net.classes}, {bytes.begin(), bytes.end()}}};
    write_safetensors(out / (name + ".safetensors"), result);
    write_onnx(out / (again + ".onnx"), logits, trainer.parameters());
  };
  write("logits", "again");
  const std::vector<std::int32_t> zeros(static_cast<std::size_t>(n));
  const std::span<const std::byte> inputs[] = {images.data, std::as_bytes(std::span(zeros))};
  const StepReport step = trainer.step(inputs);
  if (step.skipped) throw Failure("the step was skipped: " + step.reason);
  write("trained", "trained");
}

}  // namespace
}  // namespace halftone

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::cerr << "usage: halftone_peer_onnx FILE IMAGES OUT\n";
    return 2;
  }
  if (!halftone::has_onnx()) {
    std::cerr << "built without libonnx\n";
    return 77;
  }
  halftone::run(argv[1], argv[2], argv[3]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
