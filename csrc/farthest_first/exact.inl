// Decision values: the exact distance of two rows, rounded once (see reference.py).
//
// A float64 sum decides, unless it is too close to the midpoint of two neighbouring results. Then
// the sum is computed again together with its rounding errors (Ogita, Rump and Oishi, "Accurate Sum
// and Dot Product", Dot2), and if that does not decide, without rounding (integer.inl).
#pragma once

#include "integer.inl"
#include "kernels.h"
#include "rows.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

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

inline DoubleDouble multiply(DoubleDouble a, DoubleDouble b) {
  DoubleDouble product = two_product(a.high, b.high);
  return two_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
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

// A term is exactly (a + a_low) (b + b_low).
struct Factors {
  double a, b, a_low, b_low;
};

struct SquaredDifference {
  static vd of(vd x, vd y) { return (x - y) * (x - y); }
  static double of(double x, double y) { return (x - y) * (x - y); }
  static Factors factors(double x, double y) {
    const DoubleDouble difference = two_sum(x, -y);
    return {difference.high, difference.high, difference.low, difference.low};
  }
};

struct Product {
  static vd of(vd x, vd y) { return x * y; }
  static double of(double x, double y) { return x * y; }
  static Factors factors(double x, double y) { return {x, y, 0, 0}; }
};

template <typename Term, typename T, typename U>
inline double sum_terms(const T* x, const U* y, int64_t columns) {
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

struct LongSum {
  DoubleDouble value;
  bool exact;  // nothing was rounded, as with small integers
};

template <typename Term, typename T>
LongSum sum_terms_long(const T* x, const T* y, int64_t columns) {
  double sums[kDoubles] = {}, errors[kDoubles] = {}, inexact[kDoubles] = {};
  auto add = [&](int i, double left, double right) {
    const Factors f = Term::factors(left, right);
    const DoubleDouble product = two_product(f.a, f.b), sum = two_sum(sums[i], product.high);
    const double cross = f.a * f.b_low + f.a_low * f.b + f.a_low * f.b_low;
    const bool underflow = (f.a != 0) & (f.b != 0) & (__builtin_fabs(product.high) < 0x1p-900);
    sums[i] = sum.high;
    errors[i] += sum.low + (product.low + cross);
    inexact[i] += __builtin_fabs(sum.low) + __builtin_fabs(product.low) + __builtin_fabs(f.a_low) +
                  __builtin_fabs(f.b_low) + (underflow ? 1.0 : 0.0);
  };
  int64_t k = 0;
  for (; k + kDoubles <= columns; k += kDoubles) {
    for (int i = 0; i < kDoubles; ++i) add(i, x[k + i], y[k + i]);
  }
  for (int i = 0; k + i < columns; ++i) add(i, x[k + i], y[k + i]);
  DoubleDouble total{0, 0};
  double rounded = 0;
  for (int i = 0; i < kDoubles; ++i) {
    const DoubleDouble sum = two_sum(total.high, sums[i]);
    total = {sum.high, total.low + (sum.low + errors[i])};
    rounded += inexact[i] + __builtin_fabs(sum.low);
  }
  return {two_sum(total.high, total.low), rounded == 0};
}

// The sign of a - b, or 0 if rounding errors may hide it. a and b are long sums of `columns` terms
// whose magnitudes add up to at most `scale`, or products of two such sums. With u = 2^-53 a long
// sum errs by at most (columns + 4)^2 u^2 scale; 2^6 covers the products, 2^-900 underflow.
inline int compare(DoubleDouble a, DoubleDouble b, int64_t columns, double scale) {
  const double difference = (a.high - b.high) + (a.low - b.low);
  const double terms = static_cast<double>(columns + 8);
  if (__builtin_fabs(difference) <= terms * terms * 0x1p-100 * scale + 0x1p-900) return 0;
  return difference > 0 ? 1 : -1;
}

// The cost per column of each way to decide a value, in multiplications of the filter.
constexpr int64_t kSumWork = 16, kLongSumWork = 64, kExactWork = 1024;

// The sums are those of the values as given: scaling by a power of two does not round.
template <typename T>
float euclidean_value(const Space& space, const T* x, const T* y, int64_t* work) {
  const int64_t columns = space.columns;
  *work += kSumWork * columns;
  const double sum = sum_terms<SquaredDifference>(x, y, columns);
  const double doubt = sum * (static_cast<double>(columns + 8) * 0x1p-52);
  const float low = static_cast<float>((sum - doubt) * space.square);
  const float high = static_cast<float>((sum + doubt) * space.square);
  if (low == high) return low;
  const double between = 0.5 * (static_cast<double>(low) + static_cast<double>(high));
  const double middle = between / space.square;
  const LongSum longer = sum_terms_long<SquaredDifference>(x, y, columns);
  *work += kLongSumWork * columns;
  int side = (longer.value.high > middle) - (longer.value.high < middle);
  if (!longer.exact) {
    side = compare(longer.value, {middle, 0}, columns, longer.value.high);
    if (side == 0) {
      *work += kExactWork * columns;
      side = exact_euclidean_side(x, y, columns, middle);
    }
  }
  if (side != 0) return side > 0 ? high : low;
  uint32_t bits;
  __builtin_memcpy(&bits, &low, 4);
  return bits % 2 == 0 ? low : high;
}

constexpr double kCosineStep = 0x1p-23;

inline double clamp_cosine(double value) { return value < 0 ? 0 : value > 2 ? 2 : value; }

template <typename T>
float cosine_value(const T* x, const T* y, int64_t columns, double scales, int64_t* work) {
  *work += kSumWork * columns;
  const double value = 1 - 2 * scales * sum_terms<Product>(x, y, columns);
  const double doubt = static_cast<double>(columns + 16) * 0x1p-52;
  const double low = __builtin_rint(clamp_cosine(value - doubt) / kCosineStep);
  const double high = __builtin_rint(clamp_cosine(value + doubt) / kCosineStep);
  if (low == high) return static_cast<float>(low * kCosineStep);
  // The distance 1 - limit is the midpoint: compare the similarity with limit, by signed squares.
  const double limit = 1 - 0.5 * (low + high) * kCosineStep;
  *work += 3 * kLongSumWork * columns;
  const DoubleDouble dot = sum_terms_long<Product>(x, y, columns).value;
  const DoubleDouble norms = multiply(sum_terms_long<Product>(x, x, columns).value,
                                      sum_terms_long<Product>(y, y, columns).value);
  DoubleDouble left = multiply(dot, dot), right = multiply(two_product(limit, limit), norms);
  if (dot.high < 0) left = {-left.high, -left.low};
  if (limit < 0) right = {-right.high, -right.low};
  int side = -compare(left, right, columns, norms.high);
  if (side == 0) {
    *work += 3 * kExactWork * columns;
    side = exact_cosine_side(x, y, columns, static_cast<int64_t>(limit * 0x1p24));
  }
  const bool low_is_even = static_cast<int64_t>(low) % 2 == 0;
  const double nearest = side > 0 || (side == 0 && !low_is_even) ? high : low;
  return static_cast<float>(nearest * kCosineStep);
}

template <typename T>
inline float value_of(const Space& space, const Points& xs, int64_t i, const Points& ys, int64_t j,
                      const Scratch& scratch) {
  const T* x = exact_row<T>(space, xs, i, scratch.x);
  const T* y = exact_row<T>(space, ys, j, scratch.y);
  return space.cosine ? cosine_value(x, y, space.columns, xs.scales[i] * ys.scales[j], scratch.work)
                      : euclidean_value(space, x, y, scratch.work);
}

inline float decision_value(const Space& space, const Points& xs, int64_t i, const Points& ys,
                            int64_t j, const Scratch& scratch) {
  return is_wide(xs) || is_wide(ys) ? value_of<double>(space, xs, i, ys, j, scratch)
                                    : value_of<float>(space, xs, i, ys, j, scratch);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
