// Bindings of farthest_first.h: addresses as integers, structs as tuples of them.
#include <pybind11/pybind11.h>

#include <utility>

#include "farthest_first.h"

namespace py = pybind11;

namespace {

using namespace dynal::farthest_first;

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

void bind_farthest_first(py::module_& parent) {
  py::module_ m = parent.def_submodule("farthest_first");
  using Release = py::call_guard<py::gil_scoped_release>;

  m.attr("DONE") = kDone;

  py::class_<Space>(m, "Space")
      .def(py::init([](int64_t columns, bool cosine, uintptr_t mean, int exponent) {
             return make_space(columns, cosine, at<const float>(mean), exponent);
           }),
           py::arg("columns"), py::arg("cosine"), py::arg("mean"), py::arg("exponent"));

  py::class_<Points>(m, "Points")
      .def(py::init([](uintptr_t data, int64_t row_bytes, int64_t column_bytes, int dtype,
                       bool swapped, bool in_place, uintptr_t norms, uintptr_t scales) {
             return Points{at<const char>(data),
                           row_bytes,
                           column_bytes,
                           static_cast<dynal::Dtype>(dtype),
                           swapped,
                           in_place,
                           at<float>(norms),
                           at<double>(scales)};
           }),
           py::arg("data"), py::arg("row_bytes"), py::arg("column_bytes"), py::arg("dtype"),
           py::arg("swapped"), py::arg("in_place"), py::arg("norms"), py::arg("scales"));

  py::class_<Groups>(m, "Groups")
      .def(py::init([](int64_t count, uintptr_t rows, uintptr_t row_ends, uintptr_t centers,
                       uintptr_t center_ends) {
             return Groups{count, at<const int32_t>(rows), at<const int64_t>(row_ends),
                           at<const int32_t>(centers), at<const int64_t>(center_ends)};
           }),
           py::arg("count"), py::arg("rows"), py::arg("row_ends"), py::arg("centers"),
           py::arg("center_ends"));

  m.def(
      "measure",
      [](const Space& space, const Points& points, int64_t begin, int64_t end, uintptr_t measures,
         int threads) { measure(space, points, begin, end, at<Measure>(measures), threads); },
      Release());
  m.def(
      "distances",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t lower, uintptr_t upper, int64_t unit, int64_t work, int threads) {
        return distances(space, x, y, groups, at<float>(lower), at<float>(upper), {unit, work},
                         threads);
      },
      Release());
  m.def(
      "bound",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t lowered, int64_t unit, int64_t work, int threads) {
        return bound(space, x, y, groups, at<float>(lowered), {unit, work}, threads);
      },
      Release());
  m.def(
      "refresh",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t first, uintptr_t bound, uintptr_t exact, int64_t unit, int64_t work,
         int threads) {
        return refresh(space, x, y, groups, at<const int32_t>(first), at<const float>(bound),
                       at<float>(exact), {unit, work}, threads);
      },
      Release());
  m.def(
      "assign",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t ranks, uintptr_t bound, uintptr_t keys, int64_t unit, int64_t work,
         int threads) {
        return assign(space, x, y, groups, at<const int32_t>(ranks), at<const float>(bound),
                      at<int64_t>(keys), {unit, work}, threads);
      },
      Release());
  m.def(
      "traverse",
      [](const Space& space, const Points& x, uintptr_t head, int64_t count, int64_t outside,
         uintptr_t exact, uintptr_t picks, uintptr_t values, int64_t limit, int64_t work,
         int threads) {
        const Picked picked =
            traverse(space, x, at<const int32_t>(head), count, outside, at<float>(exact),
                     at<int32_t>(picks), at<float>(values), limit, work, threads);
        return std::make_pair(picked.count, picked.done);
      },
      Release());
}
