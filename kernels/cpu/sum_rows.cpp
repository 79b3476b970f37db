#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

Launch sum_rows(const Request& request) {
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const ColumnSums sums(columns, 1, machine.threads, bytes);
  const Arrays<float> buffers(columns.chunk, machine.threads, bytes), result(columns.width, 1, bytes);
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  const auto add = column_loops(machine.isa).sum;
  const auto run = [=](const Arguments& a) {
    const Input x(read, a.inputs[0]);
    const double* totals = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      add(x(first, count, buffers(a.workspace, thread)), count, columns.width, wide);
    });
    columns.fill(result(a.workspace), [&](std::int64_t j) { return totals[j]; });
    Output(written, a, 0)(0, columns.c, result(a.workspace));
  };
  return {run, bytes};
}

}  // namespace halftone::cpu
