#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/rows.hpp"

namespace halftone::cpu {

Offer sum_rows(const Request& request) {
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const ColumnSums sums(columns, 1, machine.threads, bytes);
  const Arrays<float> buffers(columns.chunk, machine.threads, bytes), result(columns.width, 1, bytes);
  const Reader x(machine, request.inputs[0]);
  const Writer y(machine, request.outputs[0]);
  const auto add = column_loops(machine.isa).sum;
  const auto run = [=](const Arguments& a) {
    const double* totals = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      add(x(a.inputs[0], first, count, buffers(a.workspace, thread)), count, columns.width, wide);
    });
    columns.fill(result(a.workspace), [&](std::int64_t j) { return totals[j]; });
    y(a.outputs[0], 0, columns.c, result(a.workspace));
  };
  return Launch{run, bytes};
}

}  // namespace halftone::cpu
