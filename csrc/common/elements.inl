// Elements of an array become float32.
#pragma once

#include <cstdint>

#include "dtype.h"
#include "vector.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace {

inline int64_t item_bytes(Dtype dtype) { return kItemBytes[static_cast<int>(dtype)]; }

// Row `row` of an array (rows, columns).
inline const char* row_of(const void* array, Dtype dtype, int64_t row, int64_t columns) {
  return static_cast<const char*>(array) + row * columns * item_bytes(dtype);
}

// float16 or bfloat16.
inline void halves_to_floats(const uint16_t* from, Dtype dtype, int64_t n, float* to) {
  int64_t i = 0;
  if (dtype == Dtype::float16) {
    for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
    if (i < n) store_n(to + i, load_n(from + i, n - i), n - i);
    return;
  }
  for (; i < n; ++i) {
    const uint32_t bits = (uint32_t)from[i] << 16;
    __builtin_memcpy(to + i, &bits, 4);
  }
}

// Any floating-point type.
inline void to_floats(const char* from, Dtype dtype, int64_t n, float* to) {
  if (dtype == Dtype::float64) {
    for (int64_t i = 0; i < n; ++i) to[i] = (float)reinterpret_cast<const double*>(from)[i];
  } else if (dtype == Dtype::float32) {
    __builtin_memcpy(to, from, n * 4);
  } else {
    halves_to_floats(reinterpret_cast<const uint16_t*>(from), dtype, n, to);
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace dynal
