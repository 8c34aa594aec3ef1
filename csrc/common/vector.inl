// The vectors that all kernels are written in: partial loads, transposition, exp and log.
//
// Nothing here needs denormal numbers, nor that they are flushed to zero: the pool statistics and
// the dense discrepancy flush them (team.h), farthest-first does not.
#pragma once

#include <cstdint>

#if defined(DYNAL_X86_64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace dynal {
namespace DYNAL_ISA {
namespace {

// Functions that only prefetch need it too: GCC finds them without effect and drops their calls.
#define DYNAL_INLINE inline __attribute__((always_inline))

constexpr int kLanes = DYNAL_VECTOR_BYTES / 4;    // of 32 bits
constexpr int kDoubles = DYNAL_VECTOR_BYTES / 8;  // and of 64
constexpr int64_t kHalfL1Floats = 4096;           // half of a small L1 cache

typedef float vf __attribute__((vector_size(DYNAL_VECTOR_BYTES)));
typedef double vd __attribute__((vector_size(DYNAL_VECTOR_BYTES)));
typedef float vf_half __attribute__((vector_size(DYNAL_VECTOR_BYTES / 2)));
typedef float quad __attribute__((vector_size(16)));
typedef float quad_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(DYNAL_VECTOR_BYTES)));
typedef float vf_unaligned __attribute__((vector_size(DYNAL_VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t vi_unaligned
    __attribute__((vector_size(DYNAL_VECTOR_BYTES), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(DYNAL_VECTOR_BYTES / 2)));
typedef uint16_t vh_unaligned
    __attribute__((vector_size(DYNAL_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(DYNAL_VECTOR_BYTES)));

#if DYNAL_VECTOR_BYTES == 64
#define DYNAL_LANES(F)                                                                           \
  F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), \
      F(15)
#elif DYNAL_VECTOR_BYTES == 32
#define DYNAL_LANES(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7)
#else
#define DYNAL_LANES(F) F(0), F(1), F(2), F(3)
#endif
#ifdef __clang__
#define DYNAL_SHUFFLE(a, b, F) __builtin_shufflevector(a, b, DYNAL_LANES(F))
#else
#define DYNAL_SHUFFLE(a, b, F) __builtin_shuffle(a, b, vi{DYNAL_LANES(F)})
#endif
// Lane i of the result, as an index into the lanes of a followed by those of b.
#define DYNAL_LANE(i) (i)
#define DYNAL_ZIP_LOW(i) ((i) / 2 + (i) % 2 * kLanes)
#define DYNAL_ZIP_HIGH(i) (((i) + kLanes) / 2 + (i) % 2 * kLanes)
// The same within each quad of lanes.
#define DYNAL_ZIP_LOW_2(i) ((i) / 4 * 4 + (i) % 4 / 2 + (i) % 2 * kLanes)
#define DYNAL_ZIP_HIGH_2(i) (DYNAL_ZIP_LOW_2(i) + 2)
#define DYNAL_JOIN_LOW(i) ((i) / 4 * 4 + (i) % 2 + (i) % 4 / 2 * kLanes)
#define DYNAL_JOIN_HIGH(i) (DYNAL_JOIN_LOW(i) + 2)
#define DYNAL_SWAP_8(i) ((i) ^ 8)
#define DYNAL_SWAP_4(i) ((i) ^ 4)
#define DYNAL_SWAP_2(i) ((i) ^ 2)
#define DYNAL_SWAP_1(i) ((i) ^ 1)

const vi kLaneIndex = {DYNAL_LANES(DYNAL_LANE)};

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

inline vf splat(float x) { return x - vf{}; }
inline vi splat(int32_t x) { return x - vi{}; }
inline vf bits_to_float(vi x) { return (vf)x; }
inline vi float_to_bits(vf x) { return (vi)x; }
inline vf select(vi mask, vf yes, vf no) { return mask ? yes : no; }
inline vi select(vi mask, vi yes, vi no) { return mask ? yes : no; }

// b where a or b is NaN.
#if defined(__AVX512F__)
inline vf maximum(vf a, vf b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline vf minimum(vf a, vf b) { return _mm512_maskz_min_ps(0xffff, a, b); }
#else
inline vf maximum(vf a, vf b) { return a > b ? a : b; }
inline vf minimum(vf a, vf b) { return a < b ? a : b; }
#endif

// Hides from the compiler where x came from. So it does not fuse a product with the sum that
// follows, nor repeat a load, which is slow where a vector crosses two cache lines.
inline vf kept(vf x) {
#if defined(DYNAL_X86_64)
  __asm__("" : "+v"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#endif
  return x;
}

inline vf load(const float* p) { return kept(*reinterpret_cast<const vf_unaligned*>(p)); }
inline vi load(const int32_t* p) { return *reinterpret_cast<const vi_unaligned*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
inline void store(int32_t* p, vi x) { *reinterpret_cast<vi_unaligned*>(p) = x; }

// Load or store the first n lanes, 0 < n <= kLanes. The others load as 0 and are not stored.
inline vf load_n(const float* p, int64_t n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, (__m256i)(kLaneIndex < splat((int32_t)n)));
#else
  vf x = {};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
#endif
}

// In pieces with AVX2, whose masked stores some CPUs take dozens of steps for.
inline void store_n(float* p, vf x, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
#elif defined(__AVX2__)
  if (n >= kLanes) {
    store(p, x);
    return;
  }
  __m128 left = _mm256_castps256_ps128(x);
  if (n & 4) {
    _mm_storeu_ps(p, left);
    left = _mm256_extractf128_ps(x, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), left);
    left = _mm_movehl_ps(left, left);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, left);
#else
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
#endif
}

// IEEE half precision, in integer arithmetic where the instruction set has no conversion.
inline vf half_to_float(vh h) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, (__m256i)h);
#elif defined(__F16C__)
  return _mm256_cvtph_ps((__m128i)h);
#else
  const vu wide = __builtin_convertvector(h, vu);
  const vu exponent = wide & 0x7c00;
  const vu special = (vu)(exponent == 0x7c00) & (112u << 23);
  const vf normal = (vf)(((wide & 0x7fff) << 13) + (112u << 23) + special);
  const vf subnormal = __builtin_convertvector((vi)(wide & 0x3ff), vf) * 0x1p-24f;
  const vf magnitude = select((vi)(exponent == 0), subnormal, normal);
  return (vf)((vu)magnitude | (wide & 0x8000) << 16);
#endif
}

// Rounds to nearest even. Right for 0 <= x <= 1: only probabilities are stored in half precision.
inline vh float_to_half(vf x) {
#if defined(__AVX512F__)
  return (vh)_mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
  return (vh)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#else
  const vu bits = (vu)x;
  const vu normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
  const vu subnormal = (vu)(x + 0.5f) - 0x3f000000;  // the sum rounds to steps of 2^-24
  return __builtin_convertvector(x < 0x1p-14f ? subnormal : normal, vh);
#endif
}

inline vf load(const uint16_t* p) {
  return half_to_float(*reinterpret_cast<const vh_unaligned*>(p));
}
inline void store(uint16_t* p, vf x) { *reinterpret_cast<vh_unaligned*>(p) = float_to_half(x); }

inline vf load_n(const uint16_t* p, int64_t n) {
  vh x = {};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return half_to_float(x);
}

inline void store_n(uint16_t* p, vf x, int64_t n) {
  const vh half = float_to_half(x);
  for (int64_t i = 0; i < n; ++i) p[i] = half[i];
}

// The first n <= 4 of four floats at p; the others load as 0 and are not stored.
inline quad load_quad(const float* p, int64_t n) {
  if (n == 4) return *reinterpret_cast<const quad_unaligned*>(p);
#if defined(__AVX2__)
  if (n == 2) return _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm_maskload_ps(p, _mm_cmpgt_epi32(_mm_set1_epi32((int)n), _mm_setr_epi32(0, 1, 2, 3)));
#else
  quad x = {};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
#endif
}

inline void store_quad(float* p, quad x, int64_t n) {
#if defined(__AVX2__)
  if (n == 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), x);
    return;
  }
#endif
  if (n == 4) {
    *reinterpret_cast<quad_unaligned*>(p) = x;
    return;
  }
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
}

inline quad load_quad(const uint16_t* p, int64_t n) {
  uint16_t h[4] = {};
  if (n == 4) {
    __builtin_memcpy(h, p, 8);
  } else {
    for (int64_t i = 0; i < n; ++i) h[i] = p[i];
  }
#if defined(__F16C__)
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(h)));
#else
  vh wide;
  __builtin_memcpy(&wide, h, 8);
  return half_to_float(wide);
#endif
}

inline void store_quad(uint16_t* p, quad x, int64_t n) {
  uint16_t h[4];
#if defined(__F16C__)
  _mm_storel_epi64(reinterpret_cast<__m128i*>(h), _mm_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
  const vh wide = float_to_half(x);
  __builtin_memcpy(h, &wide, 8);
#endif
  if (n == 4) {
    __builtin_memcpy(p, h, 8);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i] = h[i];
  }
}

// One vector of the quads part(0), part(1), ...
template <class Part>
inline vf join_quads(Part part) {
#if defined(__AVX512F__)
  vf x = _mm512_castps128_ps512(part(0));
  x = _mm512_maskz_insertf32x4(0xffff, x, part(1), 1);
  x = _mm512_maskz_insertf32x4(0xffff, x, part(2), 2);
  return _mm512_maskz_insertf32x4(0xffff, x, part(3), 3);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(part(0)), part(1), 1);
#else
  return part(0);
#endif
}

// The inverse: part(i, quad i).
template <class Part>
inline void part_quads(vf x, Part part) {
#if defined(__AVX512F__)
  part(0, _mm512_maskz_extractf32x4_ps(0xf, x, 0));
  part(1, _mm512_maskz_extractf32x4_ps(0xf, x, 1));
  part(2, _mm512_maskz_extractf32x4_ps(0xf, x, 2));
  part(3, _mm512_maskz_extractf32x4_ps(0xf, x, 3));
#elif defined(__AVX2__)
  part(0, _mm256_castps256_ps128(x));
  part(1, _mm256_extractf128_ps(x, 1));
#else
  part(0, x);
#endif
}

// Transposes each of the kLanes / 4 blocks of 4 x 4.
inline void transpose_quads(vf x[4]) {
  const vf low = DYNAL_SHUFFLE(x[0], x[1], DYNAL_ZIP_LOW_2);
  const vf high = DYNAL_SHUFFLE(x[0], x[1], DYNAL_ZIP_HIGH_2);
  const vf low_2 = DYNAL_SHUFFLE(x[2], x[3], DYNAL_ZIP_LOW_2);
  const vf high_2 = DYNAL_SHUFFLE(x[2], x[3], DYNAL_ZIP_HIGH_2);
  x[0] = DYNAL_SHUFFLE(low, low_2, DYNAL_JOIN_LOW);
  x[1] = DYNAL_SHUFFLE(low, low_2, DYNAL_JOIN_HIGH);
  x[2] = DYNAL_SHUFFLE(high, high_2, DYNAL_JOIN_LOW);
  x[3] = DYNAL_SHUFFLE(high, high_2, DYNAL_JOIN_HIGH);
}

// Four columns of kLanes rows: lane s of columns[j] is row(s)[j], for j < n <= 4.
template <class Row>
DYNAL_INLINE void load_columns(Row row, int64_t n, vf columns[4]) {
  for (int j = 0; j < 4; ++j) {
    columns[j] = join_quads([&](int i) { return load_quad(row(4 * i + j), n); });
  }
  transpose_quads(columns);
}

// The inverse, for the rows s that `wanted` has bit s of.
template <class Row>
DYNAL_INLINE void store_columns(Row row, int64_t n, const vf columns[4], uint32_t wanted) {
  vf x[4] = {columns[0], columns[1], columns[2], columns[3]};
  transpose_quads(x);
  for (int j = 0; j < 4; ++j) {
    part_quads(x[j], [&](int i, quad part) {
      if (wanted >> (4 * i + j) & 1) store_quad(row(4 * i + j), part, n);
    });
  }
}

// DO with the swap of lanes 8, 4, 2 and 1 apart, in this order.
#if DYNAL_VECTOR_BYTES == 64
#define DYNAL_FOR_SWAPS(DO) DO(DYNAL_SWAP_8) DO(DYNAL_SWAP_4) DO(DYNAL_SWAP_2) DO(DYNAL_SWAP_1)
#elif DYNAL_VECTOR_BYTES == 32
#define DYNAL_FOR_SWAPS(DO) DO(DYNAL_SWAP_4) DO(DYNAL_SWAP_2) DO(DYNAL_SWAP_1)
#else
#define DYNAL_FOR_SWAPS(DO) DO(DYNAL_SWAP_2) DO(DYNAL_SWAP_1)
#endif
#define DYNAL_ADD_SWAPPED(SWAP) x += DYNAL_SHUFFLE(x, x, SWAP);

inline vf zip_low(vf a, vf b) { return DYNAL_SHUFFLE(a, b, DYNAL_ZIP_LOW); }
inline vi zip_low(vi a, vi b) { return DYNAL_SHUFFLE(a, b, DYNAL_ZIP_LOW); }
inline vf zip_high(vf a, vf b) { return DYNAL_SHUFFLE(a, b, DYNAL_ZIP_HIGH); }
inline vi zip_high(vi a, vi b) { return DYNAL_SHUFFLE(a, b, DYNAL_ZIP_HIGH); }

// Reduces each row to one lane: lane s of the result is `combine` over the lanes of rows[s].
template <class Row, class Combine>
inline Row reduce_rows(Row rows[kLanes], Combine combine) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      rows[i] = combine(zip_low(rows[i], rows[i + half]), zip_high(rows[i], rows[i + half]));
    }
  }
  return rows[0];
}

// Lane s of the result is the sum over the lanes of rows[s], for s < count; the other lanes are
// undefined. Both branches add in the same order, so the sum of a row does not depend on `count`.
inline vf sum_rows(vf rows[kLanes], int count) {
  if (count > kLanes / 4) {
    for (int s = count; s < kLanes; ++s) rows[s] = vf{};
    return reduce_rows(rows, [](vf a, vf b) { return a + b; });
  }
  vf sums = {};
  for (int s = 0; s < count; ++s) {
    vf x = rows[s];
    DYNAL_FOR_SWAPS(DYNAL_ADD_SWAPPED)
    sums[s] = x[0];
  }
  return sums;
}

// Lane s of the result is the least of the lanes of rows[s], for s < count; the other lanes are
// undefined.
inline vf least_of_rows(vf rows[kLanes], int count) {
  for (int s = count; s < kLanes; ++s) rows[s] = rows[0];
  return reduce_rows(rows, [](vf a, vf b) { return minimum(a, b); });
}

inline vi non_finite(vf x) { return (float_to_bits(x) & 0x7f800000) == 0x7f800000; }

inline bool any(vi x) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)x, (__m512i)x);
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)x, (__m256i)x);
#else
  int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= x[i];
  return bits;
#endif
}

// a * b + c, rounded once where the instruction set can: not left to the compiler, whose choice
// depends on what stands around it.
DYNAL_INLINE vf multiply_add(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// e^x for x <= 0 with a relative error of at most 1.3e-7, and 0 below -87.3. NaN stays NaN with
// AVX-512 only. e^x = 2^n 2^f with n an integer and |f| <= 1/2; 2^f is a minimax polynomial.
DYNAL_INLINE vf exp_nonpositive(vf x) {
  const float log2_e = 1.44269504088896341f;
#if defined(__AVX512F__)
  x = maximum(splat(-150.0f), x);
#else
  const vi low = x <= -87.3f;
  x = maximum(x, splat(-87.3f));
#endif
  const vf shifted = multiply_add(x, splat(log2_e), splat(12582912.0f));  // n in the low bits
  const vf n = shifted - 12582912.0f;
#if defined(__FMA__) || defined(__aarch64__)
  const vf high = multiply_add(x, splat(log2_e), -n);
  const vf f = multiply_add(x, splat(1.92596299e-8f), high);  // the low bits of log2 e
#else
  const vf f = ((x - n * 0.693359375f) - n * -2.12194440e-4f) * log2_e;
#endif
  vf y = splat(1.53551547555e-4f);
  y = multiply_add(y, f, splat(1.33989355527e-3f));
  y = multiply_add(y, f, splat(9.61842946708e-3f));
  y = multiply_add(y, f, splat(5.55033236742e-2f));
  y = multiply_add(y, f, splat(2.40226477385e-1f));
  y = multiply_add(y, f, splat(6.93147182465e-1f));
  y = multiply_add(y, f, splat(1.0f));
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(0xffff, y, n);
#else
  y = bits_to_float(float_to_bits(y) + (float_to_bits(shifted) << 23));
  return select(low, vf{}, y);
#endif
}

// ln(1 + m) + n ln 2 for 1 + m between sqrt(1/2) and sqrt(2) and an integer n.
inline vf log_of(vf m, vf n) {
  const vf square = m * m;
  vf y = splat(7.0376836292e-2f);
  y = y * m - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * square + n * -2.12194440e-4f - 0.5f * square;
  return m + y + n * 0.693359375f;
}

// ln x for normal x >= 1. The absolute error is at most 1e-7 below 2, the relative one above.
inline vf log_from_one(vf x) {
  vi exponent = (float_to_bits(x) >> 23) - 126;
  vf m = bits_to_float((float_to_bits(x) & 0x007fffff) | 0x3f000000);  // [0.5, 1)
  const vi low = m < 0.707106781186547524f;
  exponent += low;  // a true lane is -1
  m = m + select(low, m, vf{}) - 1.0f;
  return log_of(m, __builtin_convertvector(exponent, vf));
}

// ln(1 + x) for 0 <= x <= 1. The relative error is at most 2e-7.
inline vf log_one_plus(vf x) {
  const vi large = x > 0.414213562373095049f;
  return log_of(select(large, 0.5f * x - 0.5f, x), select(large, splat(1.0f), vf{}));
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace dynal
