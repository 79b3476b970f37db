#include <fmt/format.h>

#include <algorithm>
#include <halftone/version.hpp>

#include "cli/bench_model.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "halftone/data/dataset.hpp"
#include "halftone/data/fetch.hpp"
#include "halftone/data/image.hpp"
#include "halftone/train/onnx.hpp"
#include "halftone/train/recipe.hpp"

namespace halftone::cli {
namespace {

struct InfoSettings {
  DeviceOptions device;
  std::string net, data, precision = "f32";
  std::int64_t batch = 8;
};

void show_device(const Device& device) {
  fmt::print("halftone {}\n\ndevice {}: {}\n", version, device.backend().name(), device.backend().description());
  fmt::print("instruction sets:");
  for (const std::string_view isa : isa_names()) {
    try {
      cpu_device({.isa = std::string(isa)});
      fmt::print(" {}", isa);
    } catch (const Error&) {
      fmt::print(" ({} absent)", isa);
    }
  }
  const CudaStatus cuda = cuda_status();
  fmt::print("\ncuda: {}{}", cuda.built_for, cuda.built_for.empty() ? "" : "; ");
  if (cuda.devices == 0) fmt::print("{}\n", cuda.why_none);
  if (cuda.devices > 0) fmt::print("{} device{}\n", cuda.devices, cuda.devices == 1 ? "" : "s");
}

void show_components() {
  const std::string images = image_formats();
  fmt::print("images in folders: {}\nonnx: {}\ndownloads: {}\n",
             images.empty() ? "none (built without libpng and libjpeg)" : images,
             has_onnx() ? "libonnx" : "none (built without libonnx)",
             can_fetch() ? "libcurl" : "none (built without libcurl)");
}

void show_formats() {
  fmt::print("\nformats:\n");
  for (std::size_t i = 0; i < Formats::size; ++i)
    visit_format(static_cast<DType>(i), [](auto format) {
      if constexpr (format.epsilon < 1)  // neither integers nor signs
        fmt::print("  {:5} {:2} bits  epsilon {:<12.4g} largest {:<12.6g} smallest {:.4g}\n", format.name, format.bits,
                   format.epsilon, format.largest, format.smallest);
    });
}

void show_nets() {
  fmt::print("\nnets:\n");
  for (const Net& net : nets())
    fmt::print("  {:10} {:>10} parameters, {} classes, images {}x{}x{}\n", net.name, parameter_count(net), net.classes,
               net.image.h, net.image.w, net.image.c);
  fmt::print("\nnumber systems: {}\n", precision_names());
  fmt::print("\nrecipes:\n");
  for (const Recipe& r : recipes())
    fmt::print("  {:10} {} on {}, {} epochs of batches of {}, {} {} {}\n", r.name, r.net, r.data, r.epochs, r.batch,
               r.optimizer, r.schedule, learning_rate_of(r));
}

/// ", predicted 300 GFLOP/s (implicit_gemm 120)", where a device can say so.
std::string predicted(const Graph& graph, const Node& node, const std::string& chosen, const Device& device,
                      double peak) {
  const auto inputs = as_read(graph.specs(node.inputs)), outputs = graph.specs(node.outputs);
  std::string own, second;
  double most = 0;
  for (const Kernel& kernel : device.backend().kernels().find(*node.op)) {
    const double rate = kernel.predict ? kernel.predict({*node.op, inputs, outputs, device}) * peak * 1e-9 : 0;
    if (rate == 0) continue;
    if (chosen.ends_with(std::string("/") + kernel.name)) {
      own = fmt::format(", predicted {:.0f} GFLOP/s", rate);
    } else if (rate > most) {
      most = rate, second = fmt::format(" ({} {:.0f})", kernel.name, rate);
    }
  }
  return own.empty() ? own : own + second;
}

void show_kernels(const InfoSettings& s, const Device& device) {
  const BenchModel model(s.net, s.precision, s.batch, device);
  fmt::print("{} in {}, batch {}, on {}\n", s.net, s.precision, s.batch, device.backend().description());
  const double peak = device.backend().multiply_add_peak();
  if (peak > 0) fmt::print("multiply-adds alone, as measured: {:.0f} GFLOP/s\n", peak * 1e-9);
  const Graph& graph = model.trainer.plan().graph();
  const auto& reports = model.trainer.plan().kernels();
  std::size_t width = 0;
  for (const Plan::Report& report : reports) width = std::max(width, report.node.size());
  for (const Plan::Report& report : reports) {
    fmt::print("{:{}}  {}{}\n", report.node, width, report.kernel,
               predicted(graph, graph->nodes[report.number], report.kernel, device, peak));
    for (const std::string& declined : report.declined) fmt::print("{:{}}    not {}\n", "", width, declined);
  }
}

int info(const InfoSettings& s) {
  if (!s.data.empty()) {
    fmt::print("{}\n", find_data(s.data).string());
    return 0;
  }
  const Device device = s.device.open();
  precision_by_name(s.precision);
  if (!s.net.empty()) {
    show_kernels(s, device);
    return 0;
  }
  show_device(device);
  show_components();
  show_formats();
  show_nets();
  return 0;
}

}  // namespace

void add_info(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand(
      "info", "shows devices, formats and nets; with --net the kernel of each node, with --data a folder");
  auto s = std::make_shared<InfoSettings>();
  sub->add_option("--net", s->net, "the net whose kernels to show");
  sub->add_option("--data", s->data, "a data set in files, to be told the folder that it lies in");
  sub->add_option("--precision", s->precision, "the number system")->capture_default_str();
  sub->add_option("--batch", s->batch, "images a step")->check(whole(1, 1e9))->capture_default_str();
  s->device.add_to(*sub);
  sub->callback([s, &command] { command = [s] { return info(*s); }; });
}

}  // namespace halftone::cli
