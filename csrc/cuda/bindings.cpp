// Bindings of what is compiled for GPUs: addresses on the device and a stream in.
#include <pybind11/pybind11.h>

#include "../pool_stats/arguments.h"
#include "pool_stats_head.h"

namespace py = pybind11;
using namespace dynal::pool_stats;

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Kernels of dynal_fast for Hopper (raw addresses in; see dynal_fast.ops).";
  m.def("pool_stats_head_fits", &hopper::head_fits, py::arg("classes"), py::arg("width"));
  m.def("pool_stats_head_resources", [](int64_t width) {
    const hopper::Resources resources = hopper::head_resources(width);
    return py::make_tuple(resources.warps, resources.shared);
  });
  m.def(
      "pool_stats_update_from_features",
      [](uintptr_t ids, int id_bytes, int64_t rows, int64_t classes, int dtype,
         const Linear& linear, const Tracker& tracker, uintptr_t stream) {
        const State state = state_of(tracker, classes);
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<dynal::Dtype>(dtype);
        batch.head = head_of(linear);
        py::gil_scoped_release release;
        hopper::update_from_features(state, batch, pointer<void>(stream));
      },
      "See dynal_fast.ops.pool_stats.cuda.");
}
