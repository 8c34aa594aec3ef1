// Bindings only bind: they take addresses and sizes, release the GIL and forward. The Python side
// of each operation has checked dtype, shape, contiguity and device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/cpu.h"

namespace py = pybind11;

void bind_dense_discrepancy(py::module_& m);
void bind_farthest_first(py::module_& parent);
void bind_kmeans_plusplus(py::module_& parent);
void bind_pool_stats(py::module_& parent);

PYBIND11_MODULE(_C, m) {
  m.doc() =
      "Compiled kernels of dynal_fast (raw addresses in; see dynal_fast.ops for the contracts).";

  m.def("supported_isas", [] {
    std::vector<std::string> names;
    for (dynal::Isa isa : dynal::supported_isas()) names.emplace_back(dynal::isa_name(isa));
    return names;
  });
  m.def("active_isa", [] { return std::string(dynal::isa_name(dynal::active_isa())); });
  m.def("set_isa", &dynal::set_isa, py::arg("name"));
  m.attr("compiler") = __VERSION__;
  bind_dense_discrepancy(m);
  bind_farthest_first(m);
  bind_kmeans_plusplus(m);
  bind_pool_stats(m);
}
