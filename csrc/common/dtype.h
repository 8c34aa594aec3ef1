// The element types of arrays from Python.
#pragma once

#include <cstdint>

namespace dynal {

// The values are those of dynal_fast/ops/dtypes.py. Types that float32 holds exactly come first.
enum class Dtype : int {
  float16,
  bfloat16,
  uint8,
  int8,
  uint16,
  int16,
  float32,
  float64,
  uint32,
  int32,
  uint64,
  int64,
};

// Bytes of an element, by type. A table and not a function: see isa/kernels.inl.
constexpr int64_t kItemBytes[] = {2, 2, 1, 1, 2, 2, 4, 8, 4, 4, 8, 8};

}  // namespace dynal
