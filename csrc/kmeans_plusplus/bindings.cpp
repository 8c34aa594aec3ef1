// Bindings of kmeans_plusplus.h: arrays are addresses.
#include <pybind11/pybind11.h>

#include <utility>

#include "../common/address.h"
#include "kmeans_plusplus.h"

namespace py = pybind11;
using namespace dynal::kmeans_plusplus;
using dynal::at;
using py::arg;

void bind_kmeans_plusplus(py::module_& parent) {
  py::module_ m = parent.def_submodule("kmeans_plusplus");
  using Release = py::call_guard<py::gil_scoped_release>;

  m.def(
      "advance",
      [](const Space& space, const Points& x, const Points& y, uintptr_t rows, uintptr_t first,
         int64_t count, uintptr_t picks, uintptr_t times, int64_t pick_count, uintptr_t rates,
         uintptr_t firing, int64_t unit, int64_t work, int threads) {
        return advance(space, x, y, {at<const int32_t>(rows), at<const int32_t>(first), count},
                       {at<const int32_t>(picks), at<const double>(times), pick_count},
                       {at<float>(rates), at<double>(firing)}, {unit, work}, threads);
      },
      py::kw_only(), arg("space"), arg("x"), arg("y"), arg("rows"), arg("first"), arg("count"),
      arg("picks"), arg("times"), arg("pick_count"), arg("rates"), arg("firing"), arg("unit"),
      arg("work"), arg("threads"), Release());
  m.def(
      "race",
      [](const Space& space, const Points& x, uintptr_t rows, int64_t count, double outside,
         uintptr_t rates, uintptr_t firing, uintptr_t picks, uintptr_t values, uintptr_t times,
         int64_t limit, int64_t work, int threads) {
        const Picked picked =
            race(space, x, {at<const int32_t>(rows), count, outside},
                 {at<float>(rates), at<double>(firing)},
                 {at<int32_t>(picks), at<float>(values), at<double>(times), limit}, work, threads);
        return std::make_pair(picked.count, picked.done);
      },
      py::kw_only(), arg("space"), arg("x"), arg("rows"), arg("count"), arg("outside"),
      arg("rates"), arg("firing"), arg("picks"), arg("values"), arg("times"), arg("limit"),
      arg("work"), arg("threads"), Release());
}
