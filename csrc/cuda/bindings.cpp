// Bindings of the kernels for GPUs: addresses on the device and a stream in.
#include <pybind11/pybind11.h>

#include "../common/address.h"
#include "../pool_stats/structs.h"
#include "pool_stats_head.h"

namespace py = pybind11;
namespace hopper = dynal::pool_stats::hopper;
using dynal::pool_stats::Batch;
using dynal::pool_stats::State;

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Kernels of dynal_fast for Hopper (raw addresses in; see dynal_fast.ops).";
  dynal::pool_stats::bind_structs(m);
  m.def("pool_stats_head_fits", &hopper::head_fits, py::arg("classes"), py::arg("width"));
  m.def("pool_stats_head_resources", [](int64_t width) {
    const hopper::Resources resources = hopper::head_resources(width);
    return py::make_tuple(resources.warps, resources.shared);
  });
  m.def(
      "pool_stats_update_from_features",
      [](const State& tracker, const Batch& batch, uintptr_t stream) {
        hopper::update_from_features(tracker, batch, dynal::at<void>(stream));
      },
      py::arg("tracker"), py::arg("batch"), py::arg("stream"),
      py::call_guard<py::gil_scoped_release>(), "See dynal_fast.ops.pool_stats.cuda.");
}
