// The pool statistics for one instruction set.
#pragma once

#include "head.inl"
#include "kernels.h"
#include "update.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

constexpr Kernels kKernels = {
    scratch_floats, head_scratch_floats, update_rows, packed_floats, pack_weights, update_head_rows,
};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal
