// Bindings of farthest_first.h: arrays are addresses.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../common/address.h"
#include "clusters.h"
#include "farthest_first.h"
#include "reading.h"
#include "rounds.h"

namespace py = pybind11;
using namespace dynal::farthest_first;
using dynal::at;
using py::arg;

// The members of clusters, packed, if there are any.
static const Panels* panels_of(const Clusters* clusters) {
  return clusters ? clusters->panels() : nullptr;
}

void bind_farthest_first(py::module_& parent) {
  py::module_ m = parent.def_submodule("farthest_first");
  using Release = py::call_guard<py::gil_scoped_release>;

  m.attr("DONE") = kDone;

  py::class_<Space>(m, "Space")
      .def(py::init([](int64_t columns, bool cosine, uintptr_t mean, int exponent) {
             return make_space(columns, cosine, at<const float>(mean), exponent);
           }),
           py::kw_only(), arg("columns"), arg("cosine"), arg("mean"), arg("exponent"))
      .def_static("of_products", &make_product_space, py::kw_only(), arg("left"), arg("right"),
                  arg("exponent"));

  py::class_<Matrix>(m, "Matrix")
      .def(py::init([](uintptr_t data, int64_t row_bytes, int64_t column_bytes, int dtype,
                       bool swapped, bool in_place) {
             return Matrix{at<const char>(data),
                           row_bytes,
                           column_bytes,
                           static_cast<dynal::Dtype>(dtype),
                           swapped,
                           in_place};
           }),
           py::kw_only(), arg("data"), arg("row_bytes"), arg("column_bytes"), arg("dtype"),
           arg("swapped"), arg("in_place"));

  py::class_<Points>(m, "Points")
      .def(py::init([](const Matrix& matrix, uintptr_t norms, uintptr_t scales, const Matrix* right,
                       int left_exponent) {
             return Points{matrix, at<float>(norms), at<double>(scales), right ? *right : Matrix{},
                           std::ldexp(1.0, left_exponent)};
           }),
           py::kw_only(), arg("matrix"), arg("norms"), arg("scales"), arg("right").none(true),
           arg("left_exponent"));

  py::class_<Groups>(m, "Groups")
      .def(py::init([](int64_t count, uintptr_t rows, uintptr_t row_ends, uintptr_t centers,
                       uintptr_t center_ends) {
             return Groups{count, at<const int32_t>(rows), at<const int64_t>(row_ends),
                           at<const int32_t>(centers), at<const int64_t>(center_ends)};
           }),
           py::kw_only(), arg("count"), arg("rows"), arg("row_ends"), arg("centers"),
           arg("center_ends"));

  m.def("packs", &packs, arg("space"));

  py::class_<Clusters>(m, "Clusters")
      .def(py::init([](const Space& space, const Points& y, uintptr_t centroids, uintptr_t members,
                       uintptr_t ends, int64_t count, int threads) {
             return std::make_unique<Clusters>(space, y, at<const int32_t>(centroids),
                                               at<const int32_t>(members), at<const int64_t>(ends),
                                               count, threads);
           }),
           py::kw_only(), arg("space"), arg("y"), arg("centroids"), arg("members"), arg("ends"),
           arg("count"), arg("threads"), Release())
      .def_property_readonly("usable",
                             [](const Clusters& clusters) { return clusters.panels() != nullptr; });

  m.def(
      "probe",
      [](const Space& space, const Points& x, const Points& y, uintptr_t rows, int64_t count,
         const Clusters& clusters, int64_t probes, uintptr_t lowered, int64_t unit, int64_t work,
         int threads) {
        return probe(space, x, y, at<const int32_t>(rows), count, clusters, probes,
                     at<float>(lowered), {unit, work}, threads);
      },
      arg("space"), arg("x"), arg("y"), arg("rows"), arg("count"), arg("clusters"), arg("probes"),
      arg("bound"), arg("unit"), arg("work"), arg("threads"), Release());

  m.def(
      "measure",
      [](const Space& space, const Points& points, int64_t begin, int64_t end, uintptr_t measures,
         int threads) { measure(space, points, begin, end, at<Measure>(measures), threads); },
      arg("space"), arg("points"), arg("begin"), arg("end"), arg("measures"), arg("threads"),
      Release());
  m.def(
      "distances",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t lower, uintptr_t upper, int64_t unit, int64_t work, int threads) {
        return distances({space, x, y, groups}, at<float>(lower), at<float>(upper), {unit, work},
                         threads);
      },
      arg("space"), arg("x"), arg("y"), arg("groups"), arg("lower"), arg("upper"), arg("unit"),
      arg("work"), arg("threads"), Release());
  m.def(
      "bound",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         uintptr_t lowered, int64_t unit, int64_t work, int threads) {
        return bound({space, x, y, groups}, at<float>(lowered), {unit, work}, threads);
      },
      arg("space"), arg("x"), arg("y"), arg("groups"), arg("bound"), arg("unit"), arg("work"),
      arg("threads"), Release());
  m.def(
      "refresh",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         const Clusters* clusters, uintptr_t first, uintptr_t bound, uintptr_t exact, int64_t unit,
         int64_t work, int threads) {
        return refresh({space, x, y, groups, panels_of(clusters)}, at<const int32_t>(first),
                       at<const float>(bound), at<float>(exact), {unit, work}, threads);
      },
      arg("space"), arg("x"), arg("y"), arg("groups"), arg("clusters").none(true), arg("first"),
      arg("bound"), arg("exact"), arg("unit"), arg("work"), arg("threads"), Release());
  m.def(
      "assign",
      [](const Space& space, const Points& x, const Points& y, const Groups& groups,
         const Clusters* clusters, uintptr_t ranks, uintptr_t bound, uintptr_t keys, int64_t unit,
         int64_t work, int threads) {
        return assign({space, x, y, groups, panels_of(clusters)}, at<const int32_t>(ranks),
                      at<const float>(bound), at<int64_t>(keys), {unit, work}, threads);
      },
      arg("space"), arg("x"), arg("y"), arg("groups"), arg("clusters").none(true), arg("ranks"),
      arg("bound"), arg("keys"), arg("unit"), arg("work"), arg("threads"), Release());
  m.def(
      "traverse",
      [](const Space& space, const Points& x, uintptr_t head, int64_t count, int64_t outside,
         uintptr_t exact, uintptr_t picks, uintptr_t values, int64_t limit, int64_t work,
         int threads) {
        const Picked picked =
            traverse(space, x, {at<const int32_t>(head), count, outside}, at<float>(exact),
                     {at<int32_t>(picks), at<float>(values), limit}, work, threads);
        return std::make_pair(picked.count, picked.done);
      },
      arg("space"), arg("x"), arg("head"), arg("count"), arg("outside"), arg("exact"), arg("picks"),
      arg("values"), arg("limit"), arg("work"), arg("threads"), Release());

  py::class_<Cluster>(m, "Cluster")
      .def(py::init([](const Points& points, uintptr_t members, int64_t count, uintptr_t stage,
                       int8_t exact) {
             return Cluster{points, at<const int32_t>(members), count, at<int8_t>(stage), exact};
           }),
           py::kw_only(), arg("points"), arg("members"), arg("count"), arg("stage"), arg("exact"));

  m.def(
      "rounds",
      [](const Space& space, const Points& x, const std::vector<Cluster>& clusters,
         uintptr_t candidates, int64_t candidate_count, uintptr_t bound, uintptr_t exact,
         uintptr_t applied, uintptr_t picks, uintptr_t values, int64_t count, int64_t limit,
         int64_t head, int64_t most, int threads) {
        const Known known{
            at<const int32_t>(candidates), candidate_count,    at<float>(bound), at<float>(exact),
            at<int32_t>(applied),          at<int32_t>(picks), at<float>(values)};
        const Ended ended = rounds(space, x, clusters, known, count, limit, head, most, threads);
        return std::make_tuple(ended.count, ended.left, ended.done);
      },
      arg("space"), arg("x"), arg("clusters"), arg("candidates"), arg("candidate_count"),
      arg("bound"), arg("exact"), arg("applied"), arg("picks"), arg("values"), arg("count"),
      arg("limit"), arg("head"), arg("most"), arg("threads"), Release());

  m.def(
      "expect",
      [](const Matrix& matrix, int64_t columns, int64_t rows, int order) {
        expect(matrix, columns, rows, static_cast<Order>(order));
      },
      arg("matrix"), arg("columns"), arg("rows"), arg("order"), Release());
  m.def(
      "prefetch",
      [](const Matrix& matrix, int64_t columns, uintptr_t rows, int64_t count) {
        prefetch(matrix, columns, at<const int32_t>(rows), count);
      },
      arg("matrix"), arg("columns"), arg("rows"), arg("count"), Release());
}
