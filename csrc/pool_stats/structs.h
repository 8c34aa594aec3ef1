// The structs of pool_stats.h for Python, where tensors are addresses. Both extensions have them.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <type_traits>

#include "../common/address.h"
#include "pool_stats.h"

namespace dynal {
namespace pool_stats {

// Calls visit(name, member) for the tensors of STATE in dynal_fast/ops/pool_stats/contract.py.
template <class Visit>
void for_each_tensor(State& state, const Visit& visit) {
  visit("count", state.count);
  visit("mean", state.mean);
  visit("m2", state.m2);
  visit("class_m2", state.class_m2);
  visit("entropy_sum", state.entropy_sum);
  visit("logit_count", state.logit_count);
  visit("logit_mean", state.logit_mean);
  visit("logit_m2", state.logit_m2);
  visit("label_counts", state.label_counts);
  visit("increase_count", state.increase_count);
  visit("increase_sum", state.increase_sum);
  visit("previous_output", state.previous_output);
  visit("output", state.output);
  visit("latest_output", state.latest_output);
  visit("cycle_discrepancy", state.cycle_discrepancy);
  visit("teacher_discrepancy", state.teacher_discrepancy);
  visit("last_entropy", state.last_entropy);
  visit("last_top", state.last_top);
  visit("last_margin", state.last_margin);
}

// tensors: name -> address; those that are not updated are left out.
inline State make_tracker(int64_t samples, int64_t classes, uintptr_t pass_stamp, uintptr_t stamp,
                          uintptr_t unknown_ids, const pybind11::dict& tensors, int label_bytes,
                          int output_bytes) {
  State state{};
  state.num_samples = samples;
  state.classes = classes;
  state.pass_stamp = at<const int32_t>(pass_stamp);
  state.stamp = at<int32_t>(stamp);
  state.unknown_ids = at<int64_t>(unknown_ids);
  state.label_bytes = label_bytes;
  state.output_bytes = output_bytes;
  size_t found = 0;
  for_each_tensor(state, [&](const char* name, auto*& tensor) {
    PyObject* const address = PyDict_GetItemString(tensors.ptr(), name);
    if (!address) return;
    tensor = at<std::remove_pointer_t<std::remove_reference_t<decltype(tensor)>>>(
        pybind11::handle(address).cast<uintptr_t>());
    ++found;
  });
  if (found != tensors.size()) throw std::invalid_argument("a name in tensors is not in STATE");
  return state;
}

// Adds the classes Tracker, Head and Batch to a module.
inline void bind_structs(pybind11::module_& m) {
  namespace py = pybind11;
  using py::arg;
  py::class_<State>(m, "Tracker", py::module_local())
      .def(py::init(&make_tracker), py::kw_only(), arg("samples"), arg("classes"),
           arg("pass_stamp"), arg("stamp"), arg("unknown_ids"), arg("tensors"), arg("label_bytes"),
           arg("output_bytes"));

  py::class_<Head>(m, "Head", py::module_local())
      .def(py::init([](uintptr_t features, uintptr_t weight, uintptr_t bias, int64_t width) {
             return Head{at<const void>(features), at<const void>(weight), at<const void>(bias),
                         width};
           }),
           py::kw_only(), arg("features"), arg("weight"), arg("bias"), arg("width"));

  py::class_<Batch>(m, "Batch", py::module_local())
      .def(py::init([](int64_t rows, uintptr_t ids, int id_bytes, int dtype, uintptr_t logits,
                       uintptr_t teacher_logits, std::optional<Head> head,
                       std::optional<Head> teacher_head) {
             return Batch{rows,
                          at<const void>(ids),
                          id_bytes,
                          static_cast<Dtype>(dtype),
                          at<const void>(logits),
                          at<const void>(teacher_logits),
                          head.value_or(Head{}),
                          teacher_head.value_or(Head{})};
           }),
           py::kw_only(), arg("rows"), arg("ids"), arg("id_bytes"), arg("dtype"), arg("logits") = 0,
           arg("teacher_logits") = 0, arg("head") = py::none(), arg("teacher_head") = py::none());
}

}  // namespace pool_stats
}  // namespace dynal
