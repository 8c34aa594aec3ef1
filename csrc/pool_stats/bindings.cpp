#include <pybind11/pybind11.h>

#include "arguments.h"
#include "pool_stats.h"

namespace py = pybind11;
using namespace dynal::pool_stats;

void bind_pool_stats(py::module_& m) {
  const auto call = [](const Tracker& tracker, int64_t classes, const Batch& batch, int threads) {
    const State state = state_of(tracker, classes);
    py::gil_scoped_release release;
    update(state, batch, threads);
  };
  m.def(
      "pool_stats_update",
      [=](uintptr_t ids, int id_bytes, int64_t rows, int64_t classes, int dtype, uintptr_t logits,
          uintptr_t teacher_logits, const Tracker& tracker, int threads) {
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<dynal::Dtype>(dtype);
        batch.logits = pointer<const void>(logits);
        batch.teacher_logits = pointer<const void>(teacher_logits);
        call(tracker, classes, batch, threads);
      },
      "Fold a batch of logits into the pool statistics: see dynal_fast.ops.pool_stats.");
  m.def(
      "pool_stats_update_from_features",
      [=](uintptr_t ids, int id_bytes, int64_t rows, int64_t classes, int dtype,
          const Linear& linear, const Linear& teacher, const Tracker& tracker, int threads) {
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<dynal::Dtype>(dtype);
        batch.head = head_of(linear);
        batch.teacher_head = head_of(teacher);
        call(tracker, classes, batch, threads);
      },
      "The same from features and a linear head (features, weight, bias, width).");
}
