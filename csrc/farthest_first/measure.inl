// Farthest-first: what must be known of every row before anything is compared.
#include "filter.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace {

using farthest_first::Measure;

// The largest magnitude; the bits of floats order as their magnitudes do, NaN above all.
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

}  // namespace

void ff_measure(const Space& space, const Points& points, int64_t begin, int64_t end,
                Measure* measures, Scratch* scratches, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const Scratch& scratch = scratches[thread_number()];
#pragma omp for schedule(static)
    for (int64_t row = begin; row < end; ++row) {
      measures[row - begin] =
          is_wide(points) ? measure_row(space, exact_row<double>(space, points, row, scratch.x))
                          : measure_row(space, exact_row<float>(space, points, row, scratch.x));
    }
  }
}

}  // namespace DYNAL_ISA
}  // namespace dynal
