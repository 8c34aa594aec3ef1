// Sums of products of doubles without rounding, as fixed-point numbers with all digits.
//
// They decide the rare pairs that lie on a midpoint, or too close to it for double-double
// arithmetic. A product of two doubles is an integer of 106 bits times a power of two of at least
// 2^-2148, so nothing underflows. Rows have squared norms below 2^128 (contract.py), which bounds
// the highest digit.
#pragma once

#include <cstdint>

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

constexpr int kLowestExponent = -2148;
constexpr int kDigits = 84;  // of 32 bits: up to 2^540
constexpr int64_t kDigitMask = 0xffffffff;

// The value is the sum of digits[i] 2^(32 i + kLowestExponent). A product adds less than 2^34 to a
// digit, so 2^29 products fit before the carries have to be propagated.
struct ExactSum {
  int64_t digits[kDigits];
};

// A finite double is significand * 2^exponent.
inline uint64_t significand(double value, int* exponent) {
  uint64_t bits;
  __builtin_memcpy(&bits, &value, 8);
  const int stored = static_cast<int>(bits >> 52 & 0x7ff);
  const uint64_t fraction = bits & 0xfffffffffffff;
  *exponent = (stored ? stored : 1) - 1075;
  return stored ? fraction | uint64_t{1} << 52 : fraction;
}

inline void add_product(ExactSum* sum, double a, double b) {
  int a_exponent, b_exponent;
  const uint64_t a_digits = significand(a, &a_exponent), b_digits = significand(b, &b_exponent);
  if (a_digits == 0 || b_digits == 0) return;
  unsigned __int128 product = static_cast<unsigned __int128>(a_digits) * b_digits;
  const int shift = a_exponent + b_exponent - kLowestExponent;
  const bool negative = __builtin_signbit(a) != __builtin_signbit(b);
  for (int i = shift / 32; product; ++i, product >>= 32) {
    const uint64_t part = static_cast<uint64_t>(product & 0xffffffff) << (shift % 32);
    const int64_t low = static_cast<int64_t>(part & 0xffffffff);
    const int64_t high = static_cast<int64_t>(part >> 32);
    sum->digits[i] += negative ? -low : low;
    sum->digits[i + 1] += negative ? -high : high;
  }
}

// Propagates the carries: the last digit has the sign, the others are in [0, 2^32). Returns the
// sign.
inline int carry(int64_t* digits, int count) {
  bool zero = true;
  for (int i = 0; i + 1 < count; ++i) {
    digits[i + 1] += digits[i] >> 32;
    digits[i] &= kDigitMask;
    zero = zero && digits[i] == 0;
  }
  return digits[count - 1] < 0 ? -1 : zero && digits[count - 1] == 0 ? 0 : 1;
}

// Replaces the sum by its magnitude; returns its sign.
inline int magnitude(ExactSum* sum) {
  const int sign = carry(sum->digits, kDigits);
  if (sign < 0) {
    for (int i = 0; i < kDigits; ++i) sum->digits[i] = -sum->digits[i];
    carry(sum->digits, kDigits);
  }
  return sign;
}

// product (a_count + b_count) = a * b, all digits in [0, 2^32).
inline void multiply(const int64_t* a, int a_count, const int64_t* b, int b_count,
                     int64_t* product) {
  for (int i = 0; i < a_count + b_count; ++i) product[i] = 0;
  for (int i = 0; i < a_count; ++i) {
    uint64_t carried = 0;
    for (int j = 0; j < b_count; ++j) {
      carried += static_cast<uint64_t>(a[i]) * static_cast<uint64_t>(b[j]) +
                 static_cast<uint64_t>(product[i + j]);
      product[i + j] = static_cast<int64_t>(carried & 0xffffffff);
      carried >>= 32;
    }
    product[i + b_count] = static_cast<int64_t>(carried);
  }
}

// The sign of |x - y|^2 - threshold.
template <typename T>
int exact_euclidean_side(const T* x, const T* y, int64_t columns, double threshold) {
  ExactSum sum = {};
  for (int64_t k = 0; k < columns; ++k) {
    const double a = x[k], b = y[k], high = a - b, part = high - a;
    const double low = (a - (high - part)) - (b + part);  // a - b = high + low, exactly
    add_product(&sum, high, high);
    add_product(&sum, 2 * high, low);
    add_product(&sum, low, low);
  }
  add_product(&sum, -threshold, 1);
  return carry(sum.digits, kDigits);
}

// The sign of the cosine distance of x and y minus (1 - limit 2^-24), |limit| <= 2^24. It is that
// of limit |limit| |x|^2 |y|^2 - 2^48 dot |dot|.
template <typename T>
int exact_cosine_side(const T* x, const T* y, int64_t columns, int64_t limit) {
  ExactSum dot = {}, xx = {}, yy = {};
  for (int64_t k = 0; k < columns; ++k) {
    add_product(&dot, x[k], y[k]);
    add_product(&xx, x[k], x[k]);
    add_product(&yy, y[k], y[k]);
  }
  const int sign = magnitude(&dot), limit_sign = limit < 0 ? -1 : limit > 0;
  if (sign != limit_sign) return sign < limit_sign ? 1 : -1;
  magnitude(&xx);
  magnitude(&yy);
  constexpr int kProduct = 2 * kDigits, kScaled = kProduct + 2;
  int64_t square[kProduct], norms[kProduct], left[kScaled], right[kScaled];
  multiply(dot.digits, kDigits, dot.digits, kDigits, square);
  multiply(xx.digits, kDigits, yy.digits, kDigits, norms);
  const int64_t one[2] = {0, 1 << 16}, squared_limit = limit * limit;
  const int64_t limits[2] = {squared_limit & kDigitMask, squared_limit >> 32};
  multiply(square, kProduct, one, 2, left);
  multiply(norms, kProduct, limits, 2, right);
  for (int i = kScaled - 1; i >= 0; --i) {
    if (left[i] != right[i]) return (right[i] > left[i] ? 1 : -1) * sign;
  }
  return 0;
}

// The sign of |u v^T - w z^T|^2 - threshold.
template <typename T>
int exact_product_side(const T* u, const T* v, const T* w, const T* z, int64_t left, int64_t right,
                       double threshold) {
  constexpr int kProduct = 2 * kDigits, kTotal = kProduct + 2;
  int64_t total[kTotal] = {};
  auto add = [&](const T* a, const T* b, const T* c, const T* d, int64_t weight) {
    ExactSum one = {}, other = {};
    for (int64_t k = 0; k < left; ++k) add_product(&one, a[k], b[k]);
    for (int64_t k = 0; k < right; ++k) add_product(&other, c[k], d[k]);
    const int first = magnitude(&one), sign = first * magnitude(&other);
    int64_t product[kProduct];
    multiply(one.digits, kDigits, other.digits, kDigits, product);
    for (int i = 0; i < kProduct; ++i) total[i] += sign * weight * product[i];
  };
  add(u, u, v, v, 1);
  add(w, w, z, z, 1);
  add(u, w, v, z, -2);
  int exponent;
  unsigned __int128 digits = significand(threshold, &exponent);
  const int shift = exponent - 2 * kLowestExponent;
  digits <<= shift % 32;
  for (int i = shift / 32; digits; ++i, digits >>= 32) {
    total[i] -= static_cast<int64_t>(digits & 0xffffffff);
  }
  return carry(total, kTotal);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
