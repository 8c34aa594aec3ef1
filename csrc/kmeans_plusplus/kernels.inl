// D^2 sampling for one instruction set.
#pragma once

#include "advance.inl"
#include "kernels.h"
#include "race.inl"

namespace dynal {
namespace kmeans_plusplus {
namespace DYNAL_ISA {
namespace {

constexpr Kernels kKernels = {advance, race};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace kmeans_plusplus
}  // namespace dynal
