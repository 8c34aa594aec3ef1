// Decision values: the exact distance of two rows, rounded once (see reference.py).
//
// A float64 sum decides unless it lies too close to the midpoint of two neighbours; then the sum is
// taken again in double-double arithmetic, and where even that leaves a doubt, on ties above all,
// without any rounding.
#pragma once

#include "farthest_first_integer.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace {

typedef float vf __attribute__((vector_size(DYNAL_VECTOR_BYTES)));
typedef double vd __attribute__((vector_size(DYNAL_VECTOR_BYTES)));
typedef float vf_half __attribute__((vector_size(DYNAL_VECTOR_BYTES / 2)));
constexpr int kFloats = DYNAL_VECTOR_BYTES / 4;
constexpr int kDoubles = DYNAL_VECTOR_BYTES / 8;

struct DoubleDouble {
  double high, low;
};

inline DoubleDouble two_sum(double a, double b) {
  double sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

inline DoubleDouble two_product(double a, double b) {
  double product = a * b;
  return {product, __builtin_fma(a, b, -product)};
}

inline DoubleDouble add(DoubleDouble a, DoubleDouble b) {
  DoubleDouble high = two_sum(a.high, b.high), low = two_sum(a.low, b.low);
  DoubleDouble sum = two_sum(high.high, high.low + low.high);
  return two_sum(sum.high, sum.low + low.low);
}

inline DoubleDouble multiply(DoubleDouble a, DoubleDouble b) {
  DoubleDouble product = two_product(a.high, b.high);
  return two_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}

inline float float_of_half(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  value *= 0x1p112f;  // exact, for subnormal halves too
  __builtin_memcpy(&bits, &value, 4);
  if ((half & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= static_cast<uint32_t>(half & 0x8000) << 16;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Row `row` as it is stored, or as float32 for the narrow types, which float32 holds exactly.
inline const void* exact_row(const Space& space, const Points& points, int64_t row, void* buffer) {
  const int64_t at = row * points.stride;
  if (points.dtype == farthest_first::float32) return static_cast<const float*>(points.data) + at;
  if (points.dtype == farthest_first::float64) return static_cast<const double*>(points.data) + at;
  const uint16_t* source = static_cast<const uint16_t*>(points.data) + at;
  float* target = static_cast<float*>(buffer);
  if (points.dtype == farthest_first::float16) {
    for (int64_t k = 0; k < space.columns; ++k) target[k] = float_of_half(source[k]);
  } else {
    for (int64_t k = 0; k < space.columns; ++k) {
      uint32_t bits = static_cast<uint32_t>(source[k]) << 16;
      __builtin_memcpy(target + k, &bits, 4);
    }
  }
  return buffer;
}

inline vd load_doubles(const float* p) {
  vf_half narrow;
  __builtin_memcpy(&narrow, p, sizeof narrow);
  return __builtin_convertvector(narrow, vd);
}

inline vd load_doubles(const double* p) {
  vd wide;
  __builtin_memcpy(&wide, p, sizeof wide);
  return wide;
}

struct SquaredDifference {
  static vd of(vd x, vd y) { return (x - y) * (x - y); }
  static double of(double x, double y) { return (x - y) * (x - y); }
  static DoubleDouble exactly(double x, double y) {
    DoubleDouble difference = two_sum(x, -y);
    return multiply(difference, difference);
  }
};

struct Product {
  static vd of(vd x, vd y) { return x * y; }
  static double of(double x, double y) { return x * y; }
  static DoubleDouble exactly(double x, double y) { return two_product(x, y); }
};

template <typename Term, typename T>
inline double sum_terms(const T* x, const T* y, int64_t columns) {
  vd sums[4] = {};
  int64_t k = 0;
  for (; k + 4 * kDoubles <= columns; k += 4 * kDoubles) {
    for (int i = 0; i < 4; ++i) {
      sums[i] += Term::of(load_doubles(x + k + i * kDoubles), load_doubles(y + k + i * kDoubles));
    }
  }
  vd sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int i = 0; i < kDoubles; ++i) total += sum[i];
  for (; k < columns; ++k) total += Term::of(double(x[k]), double(y[k]));
  return total;
}

template <typename Term, typename T>
DoubleDouble sum_terms_exactly(const T* x, const T* y, int64_t columns) {
  DoubleDouble sum{0, 0};
  for (int64_t k = 0; k < columns; ++k) sum = add(sum, Term::exactly(x[k], y[k]));
  return sum;
}

// The sign of a - b, 0 where rounding leaves a doubt: sums of `columns` terms, of magnitudes that
// add up to `scale` at most, and errors that underflowed.
inline int compare(DoubleDouble a, DoubleDouble b, int64_t columns, double scale) {
  const double difference = (a.high - b.high) + (a.low - b.low);
  const double doubt = static_cast<double>(columns + 8) * 0x1p-98 * scale + 0x1p-900;
  if (__builtin_fabs(difference) <= doubt) return 0;
  return difference > 0 ? 1 : -1;
}

template <typename T>
float euclidean_value(const T* x, const T* y, int64_t columns) {
  const double sum = sum_terms<SquaredDifference>(x, y, columns);
  const double doubt = sum * (static_cast<double>(columns + 8) * 0x1p-52);
  const float low = static_cast<float>(sum - doubt), high = static_cast<float>(sum + doubt);
  if (low == high) return low;
  const double middle = 0.5 * (static_cast<double>(low) + static_cast<double>(high));
  const DoubleDouble longer = sum_terms_exactly<SquaredDifference>(x, y, columns);
  int side = compare(longer, {middle, 0}, columns, longer.high);
  if (side == 0) side = exact_euclidean_side(x, y, columns, middle);
  if (side != 0) return side > 0 ? high : low;
  uint32_t bits;
  __builtin_memcpy(&bits, &low, 4);
  return bits % 2 == 0 ? low : high;
}

constexpr double kCosineStep = 0x1p-23;

inline double clamp_cosine(double value) { return value < 0 ? 0 : value > 2 ? 2 : value; }

template <typename T>
float cosine_value(const T* x, const T* y, int64_t columns, double scales) {
  const double value = 1 - 2 * scales * sum_terms<Product>(x, y, columns);
  const double doubt = static_cast<double>(columns + 16) * 0x1p-52;
  const double low = __builtin_rint(clamp_cosine(value - doubt) / kCosineStep);
  const double high = __builtin_rint(clamp_cosine(value + doubt) / kCosineStep);
  if (low == high) return static_cast<float>(low * kCosineStep);
  // similarity < limit, where the distance 1 - limit is the midpoint; squares keep the order.
  const double limit = 1 - 0.5 * (low + high) * kCosineStep;
  const DoubleDouble dot = sum_terms_exactly<Product>(x, y, columns);
  const DoubleDouble norms = multiply(sum_terms_exactly<Product>(x, x, columns),
                                      sum_terms_exactly<Product>(y, y, columns));
  DoubleDouble left = multiply(dot, dot), right = multiply(two_product(limit, limit), norms);
  if (dot.high < 0) left = {-left.high, -left.low};
  if (limit < 0) right = {-right.high, -right.low};
  int side = -compare(left, right, columns, norms.high);
  if (side == 0) {
    side = exact_cosine_side(x, y, columns, static_cast<int64_t>(limit * 0x1p24));
  }
  const bool low_is_even = static_cast<int64_t>(low) % 2 == 0;
  const double nearest = side > 0 || (side == 0 && !low_is_even) ? high : low;
  return static_cast<float>(nearest * kCosineStep);
}

inline float decision_value(const Space& space, const Points& xs, int64_t i, const Points& ys,
                            int64_t j, const Scratch& scratch) {
  const void* x = exact_row(space, xs, i, scratch.x);
  const void* y = exact_row(space, ys, j, scratch.y);
  const int64_t columns = space.columns;
  if (xs.dtype == farthest_first::float64) {
    const double *a = static_cast<const double*>(x), *b = static_cast<const double*>(y);
    return space.cosine ? cosine_value(a, b, columns, xs.scales[i] * ys.scales[j])
                        : euclidean_value(a, b, columns);
  }
  const float *a = static_cast<const float*>(x), *b = static_cast<const float*>(y);
  return space.cosine ? cosine_value(a, b, columns, xs.scales[i] * ys.scales[j])
                      : euclidean_value(a, b, columns);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace dynal
