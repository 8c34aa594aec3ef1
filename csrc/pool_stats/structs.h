// The structs of pool_stats.h for Python, where tensors are addresses. Both extensions have them.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>

#include "../common/address.h"
#include "pool_stats.h"

namespace dynal {
namespace pool_stats {

// Sets a pointer of the state, if its tensor is among `tensors`: name -> address.
template <class T>
bool set_tensor(T*& tensor, PyObject* name, const pybind11::dict& tensors) {
  PyObject* const address = PyDict_GetItem(tensors.ptr(), name);
  if (!address) return false;
  tensor = at<T>(pybind11::handle(address).cast<uintptr_t>());
  return true;
}

// Tensors that are not updated are not among `tensors`.
inline State make_tracker(int64_t samples, int64_t classes, uintptr_t pass_stamp, uintptr_t stamp,
                          uintptr_t unknown_ids, const pybind11::dict& tensors, int label_bytes,
                          int output_bytes, bool sigmoid) {
  State state{};
  state.num_samples = samples;
  state.classes = classes;
  state.pass_stamp = at<const int32_t>(pass_stamp);
  state.stamp = at<int32_t>(stamp);
  state.unknown_ids = at<int64_t>(unknown_ids);
  state.label_bytes = label_bytes;
  state.output_bytes = output_bytes;
  state.activation = sigmoid ? Activation::sigmoid : Activation::softmax;
  size_t found = 0;
#define DYNAL_SET(NAME)                                              \
  {                                                                  \
    static PyObject* const name = PyUnicode_InternFromString(#NAME); \
    found += set_tensor(state.NAME, name, tensors);                  \
  }
  DYNAL_SET(count)
  DYNAL_SET(mean)
  DYNAL_SET(m2)
  DYNAL_SET(class_m2)
  DYNAL_SET(entropy_sum)
  DYNAL_SET(logit_count)
  DYNAL_SET(logit_mean)
  DYNAL_SET(logit_m2)
  DYNAL_SET(label_counts)
  DYNAL_SET(increase_count)
  DYNAL_SET(increase_sum)
  DYNAL_SET(previous_output)
  DYNAL_SET(output)
  DYNAL_SET(latest_output)
  DYNAL_SET(cycle_discrepancy)
  DYNAL_SET(teacher_discrepancy)
  DYNAL_SET(last_entropy)
  DYNAL_SET(last_top)
  DYNAL_SET(last_margin)
  DYNAL_SET(training_count)
  DYNAL_SET(training)
#undef DYNAL_SET
  if (found != tensors.size()) throw std::invalid_argument("tensors has a name that is not known");
  return state;
}

// Adds the classes Tracker, Head and Batch to a module.
inline void bind_structs(pybind11::module_& m) {
  namespace py = pybind11;
  using py::arg;
  py::class_<State>(m, "Tracker", py::module_local())
      .def(py::init(&make_tracker), arg("samples"), arg("classes"), arg("pass_stamp"), arg("stamp"),
           arg("unknown_ids"), arg("tensors"), arg("label_bytes"), arg("output_bytes"),
           arg("sigmoid"));

  py::class_<Dropout>(m, "Dropout", py::module_local())
      .def(py::init([](uint64_t key, uint64_t first_sample, uint32_t below, float scale) {
             return Dropout{key, first_sample, below, scale};
           }),
           arg("key"), arg("first_sample"), arg("below"), arg("scale"));

  py::class_<Head>(m, "Head", py::module_local())
      .def(py::init([](uintptr_t features, uintptr_t weight, uintptr_t bias, int64_t width,
                       int dtype, bool by_id, std::optional<Dropout> dropout) {
             return Head{at<const void>(features),   at<const void>(weight),
                         at<const void>(bias),       width,
                         static_cast<Dtype>(dtype),  by_id,
                         dropout.value_or(Dropout{})};
           }),
           arg("features"), arg("weight"), arg("bias"), arg("width"), arg("dtype"),
           arg("by_id") = false, arg("dropout") = py::none());

  py::class_<Batch>(m, "Batch", py::module_local())
      .def(py::init([](int64_t rows, uintptr_t ids, int id_bytes, int dtype, uintptr_t logits,
                       uintptr_t teacher_logits, std::optional<Head> head,
                       std::optional<Head> teacher_head, uintptr_t targets) {
             return Batch{rows,
                          at<const void>(ids),
                          id_bytes,
                          static_cast<Dtype>(dtype),
                          at<const void>(logits),
                          at<const void>(teacher_logits),
                          head.value_or(Head{}),
                          teacher_head.value_or(Head{}),
                          at<const int64_t>(targets)};
           }),
           arg("rows"), arg("ids"), arg("id_bytes"), arg("dtype"), arg("logits") = 0,
           arg("teacher_logits") = 0, arg("head") = py::none(), arg("teacher_head") = py::none(),
           arg("targets") = 0);
}

}  // namespace pool_stats
}  // namespace dynal
