// Farthest-first for one instruction set.
#pragma once

#include "assign.inl"
#include "filter.inl"
#include "kernels.h"
#include "measure.inl"
#include "nearest.inl"
#include "traverse.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

constexpr Kernels kKernels = {kHasShorts, measure, distances, bound,   refresh,
                              assign,     pack,    pack_rows, nearest, traverse};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
