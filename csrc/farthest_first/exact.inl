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

inline DoubleDouble add(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble sum = two_sum(a.high, b.high), rest = two_sum(a.low, b.low);
  const DoubleDouble high = two_sum(sum.high, sum.low + rest.high);
  return two_sum(high.high, high.low + rest.low);
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

template <typename T>
inline bool equal_rows(const T* x, const T* y, int64_t columns) {
  for (int64_t k = 0; k < columns; ++k) {
    if (x[k] != y[k]) return false;
  }
  return true;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
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

// Outer products u v^T and w z^T: |u|^2 |v|^2 + |w|^2 |z|^2 - 2 (u.w) (v.z). Where that cancels it
// is computed again in more digits. The float64 result errs by less than (columns + 16) 2^-51 times
// the sum of the squared norms, the double-double one by less than (columns + 16)^2 2^-98 times it.
template <typename T>
float product_value(const Space& space, const T* u, const T* v, const T* w, const T* z,
                    int64_t* work) {
  const int64_t left = space.left, right = space.columns - left;
  const double terms = static_cast<double>(space.columns + 16);
  *work += 3 * kSumWork * space.columns;
  const double own = sum_terms<Product>(u, u, left) * sum_terms<Product>(v, v, right);
  const double other = sum_terms<Product>(w, w, left) * sum_terms<Product>(z, z, right);
  const double dot = sum_terms<Product>(u, w, left) * sum_terms<Product>(v, z, right);
  const double norms = own + other, sum = norms - 2 * dot, doubt = norms * terms * 0x1p-51;
  auto rounded = [&](double value) {
    return value > 0 ? static_cast<float>(value * space.square) : 0.0f;
  };
  if (rounded(sum - doubt) == rounded(sum + doubt)) return rounded(sum);
  if (equal_rows(u, w, left) && equal_rows(v, z, right)) return 0;
  *work += 6 * kLongSumWork * space.columns;
  auto product = [&](const T* a, const T* b, const T* c, const T* d) {
    return multiply(sum_terms_long<Product>(a, b, left).value,
                    sum_terms_long<Product>(c, d, right).value);
  };
  const DoubleDouble squares = add(product(u, u, v, v), product(w, w, z, z));
  const DoubleDouble cross = product(u, w, v, z);
  const DoubleDouble longer = add(squares, {-2 * cross.high, -2 * cross.low});
  const double long_doubt = terms * terms * 0x1p-98 * norms + 0x1p-700;
  auto side = [&](double threshold) {
    const double difference = (longer.high - threshold) + longer.low;
    if (__builtin_fabs(difference) > long_doubt) return difference > 0 ? 1 : -1;
    *work += 6 * kExactWork * space.columns;
    return exact_product_side(u, v, w, z, left, right, threshold);
  };
  if (side(0) == 0) return 0;
  // The value lies between two floats: a bisection over their bits.
  uint32_t low = bits_of(rounded((longer.high - long_doubt) * (1 - 0x1p-40)));
  uint32_t high = bits_of(rounded((longer.high + long_doubt) * (1 + 0x1p-40)));
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const double between =
        0.5 * (static_cast<double>(float_of(middle)) + static_cast<double>(float_of(middle + 1)));
    const int above = side(between / space.square);
    if (above > 0 || (above == 0 && middle % 2 == 1)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return float_of(low);
}

template <typename T>
inline float value_of(const Space& space, const Points& xs, int64_t i, const Points& ys, int64_t j,
                      const Scratch& scratch) {
  const int64_t left = space.left, right = space.columns - left;
  const T* x = exact_row<T>(xs, left, i, scratch.x);
  const T* y = exact_row<T>(ys, left, j, scratch.y);
  if (right > 0) {
    const T* v = exact_row<T>(xs.right, right, i, static_cast<T*>(scratch.x) + left);
    const T* z = exact_row<T>(ys.right, right, j, static_cast<T*>(scratch.y) + left);
    return product_value(space, x, v, y, z, scratch.work);
  }
  return space.cosine ? cosine_value(x, y, space.columns, xs.scales[i] * ys.scales[j], scratch.work)
                      : euclidean_value(space, x, y, scratch.work);
}

inline float decision_value(const Space& space, const Points& xs, int64_t i, const Points& ys,
                            int64_t j, const Scratch& scratch) {
  const bool wide = is_wide(xs) || is_wide(ys) || is_wide(xs.right) || is_wide(ys.right);
  return wide ? value_of<double>(space, xs, i, ys, j, scratch)
              : value_of<float>(space, xs, i, ys, j, scratch);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
