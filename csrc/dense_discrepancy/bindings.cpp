#include <pybind11/pybind11.h>

#include "../common/address.h"
#include "dense_discrepancy.h"

namespace py = pybind11;

void bind_dense_discrepancy(py::module_& m) {
  m.def(
      "dense_discrepancy",
      [](uintptr_t logits, uintptr_t other, int dtype, int64_t classes, int64_t pixels,
         int threads) {
        const dynal::dense_discrepancy::Maps maps = {
            dynal::at<const void>(logits), dynal::at<const void>(other),
            static_cast<dynal::Dtype>(dtype), classes, pixels};
        return dynal::dense_discrepancy::mean_squared_distance(maps, threads);
      },
      py::arg("logits"), py::arg("other"), py::arg("dtype"), py::arg("classes"), py::arg("pixels"),
      py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
      "The dense discrepancy of one image: see dynal_fast.ops.dense_discrepancy.");
}
