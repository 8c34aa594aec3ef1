#include <pybind11/pybind11.h>

#include "pool_stats.h"
#include "structs.h"

namespace py = pybind11;

void bind_pool_stats(py::module_& parent) {
  py::module_ m = parent.def_submodule("pool_stats");
  dynal::pool_stats::bind_structs(m);
  m.def("update", &dynal::pool_stats::update, py::arg("tracker"), py::arg("batch"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
        "Fold a batch of logits or features into a tracker: see dynal_fast.ops.pool_stats.");
}
