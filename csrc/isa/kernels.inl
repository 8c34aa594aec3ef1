// Every kernel, compiled once per instruction set by the files beside this one.
//
// The kernels are in an anonymous namespace and call no inline function of the C++ library, nor any
// other inline function from outside of it. The linker keeps one copy of such a function for the
// whole extension, and that copy could use instructions that the CPU does not have.
#include "../dense_discrepancy/kernels.inl"
#include "../farthest_first/kernels.inl"
#include "../kmeans_plusplus/kernels.inl"
#include "../pool_stats/kernels.inl"
#include "kernels.h"

namespace dynal {
namespace DYNAL_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    dense_discrepancy::DYNAL_ISA::kKernels,
    farthest_first::DYNAL_ISA::kKernels,
    kmeans_plusplus::DYNAL_ISA::kKernels,
    pool_stats::DYNAL_ISA::kKernels,
};

}  // namespace DYNAL_ISA
}  // namespace dynal
