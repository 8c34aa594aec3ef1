// What must be known of every row before distances are computed.
#pragma once

#include "exact.inl"
#include "tile.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

// The largest magnitude. The bits of floats are in the order of their magnitudes, with NaN on top.
inline double largest_magnitude(const float* values, int64_t columns) {
  uint32_t most = 0;
  for (int64_t k = 0; k < columns; ++k) {
    uint32_t bits;
    __builtin_memcpy(&bits, values + k, 4);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float largest;
  __builtin_memcpy(&largest, &most, 4);
  return largest;
}

inline double largest_magnitude(const double* values, int64_t columns) {
  int64_t most = 0;
  for (int64_t k = 0; k < columns; ++k) {
    int64_t bits;
    __builtin_memcpy(&bits, values + k, 8);
    bits &= 0x7fffffffffffffff;
    most = bits > most ? bits : most;
  }
  double largest;
  __builtin_memcpy(&largest, &most, 8);
  return largest;
}

template <typename T>
Measure measure_row(const Space& space, const T* values) {
  const int64_t columns = space.columns;
  return {sum_terms<Product>(values, values, columns),
          space.cosine ? 0 : sum_terms<SquaredDifference>(values, space.mean, columns),
          largest_magnitude(values, columns)};
}

void measure(const Space& space, const Points& points, int64_t begin, int64_t end,
             Measure* measures, const Scratch* scratches, int threads) {
  const int parts = threads_for((end - begin) * space.columns, threads);
  in_parts(parts, [&](int part) {
    const Scratch& scratch = scratches[part];
    const int64_t last = begin + (end - begin) * (part + 1) / parts;
    for (int64_t row = begin + (end - begin) * part / parts; row < last; ++row) {
      measures[row - begin] =
          is_wide(points)
              ? measure_row(space, exact_row<double>(points, space.columns, row, scratch.x))
              : measure_row(space, exact_row<float>(points, space.columns, row, scratch.x));
    }
  });
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
