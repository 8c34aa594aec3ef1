// The matrix product of the filter in integers of 16 bits. CPUs multiply two of them where they
// multiply one float32, and packed rows take half the cache. A row is scaled to the length kLength
// and rounded; the error bound is in farthest_first.cpp. What is decided in the end does not depend
// on it.
#pragma once

#include "tile.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

#if defined(DYNAL_X86_64)
constexpr bool kHasShorts = true;
#else
constexpr bool kHasShorts = false;  // no instruction multiplies and adds them
#endif

// Lane i is a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1].
inline vi multiply_pairs(vi a, vi b) {
#if defined(__AVX512BW__)
  return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(DYNAL_X86_64)
  return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return a * b;  // never called
#endif
}

// *sum += x, in this order: a compiler that multiplies for later sums first runs out of registers.
inline void add_in_order(vi* sum, vi x) {
#if defined(__AVX2__)
  __asm__ volatile("vpaddd %1, %0, %0" : "+v"(*sum) : "v"(x));
#elif defined(DYNAL_X86_64)
  __asm__ volatile("paddd %1, %0" : "+x"(*sum) : "x"(x));
#else
  *sum += x;
#endif
}

constexpr int64_t kShortsInQuad = 8;  // load_columns transposes quads of 32 bits

inline int64_t short_columns(const Space& space) { return round_up(space.columns, kShortsInQuad); }

// Row `row` in integers, at target (short_columns,), padded with zeros. Returns its unit: what an
// integer stands for. buffer (columns rounded up to 16,): the row in float32.
inline float short_row(const Space& space, const Points& points, int64_t row, int16_t* target,
                       float* buffer, void* convert) {
  filter_row(space, points, row, buffer, convert);
  const int64_t width = short_columns(space), padded = round_up(width, kLanes);
  __builtin_memset(buffer + space.columns, 0, (padded - space.columns) * sizeof(float));
  const float norm = points.norm(row);
  const bool nothing = norm < kShortestSquare;
  const float length = __builtin_sqrtf(norm);
  const float scale = nothing ? 0 : kLength / length;
  // The integer is in the low bits of a float32 of 2^23 and more. It is rounded by that addition.
  const vf in_low_bits = splat(12582912.0f);
  int16_t last[kLanes];
  for (int64_t k = 0; k < padded; k += kLanes) {
    const vh rounded =
        __builtin_convertvector(float_to_bits(load(buffer + k) * scale + in_low_bits), vh);
    const bool whole = k + kLanes <= width;
    __builtin_memcpy(whole ? target + k : last, &rounded, sizeof rounded);
    if (!whole) __builtin_memcpy(target + k, last, (width - k) * sizeof(int16_t));
  }
  return nothing ? 0 : length / kLength;
}

inline float* short_buffer(const Scratch& scratch) { return static_cast<float*>(scratch.y); }

// As pack_centers, in panels (short_columns / 2, kPanel) of pairs of integers.
inline void pack_short_centers(const Space& space, const Points& points, const int32_t* centers,
                               int64_t count, const Scratch& scratch) {
  const int64_t width = short_columns(space), pairs = width / 2;
  int16_t* rows = reinterpret_cast<int16_t*>(scratch.rows);  // kLanes rows at a time
  for (int64_t c = 0; c < round_up(count, kPanel); c += kLanes) {
    const int64_t here = count - c < kLanes ? (count > c ? count - c : 0) : kLanes;
    for (int64_t i = 0; i < kLanes; ++i) {
      if (i < here) {
        scratch.units[c + i] = short_row(space, points, centers[c + i], rows + i * width,
                                         short_buffer(scratch), scratch.x);
      } else {
        __builtin_memset(rows + i * width, 0, width * sizeof(int16_t));
        scratch.units[c + i] = 0;
      }
      set_terms(space, space.short_slack, points, i < here ? centers + c + i : nullptr, c + i,
                scratch);
    }
    float* panel = scratch.centers + c / kPanel * kPanel * pairs + c % kPanel;
    for (int64_t k = 0; k < pairs; k += 4) {
      vf columns[4];
      load_columns([&](int i) { return reinterpret_cast<const float*>(rows + i * width + 2 * k); },
                   4, columns);
      for (int j = 0; j < 4; ++j) store(panel + (k + j) * kPanel, columns[j]);
    }
  }
}

// As pack_rows, in integers (kTileRows, short_columns).
inline void pack_short_rows(const Space& space, const Points& points, const int32_t* rows,
                            int64_t count, const Scratch& scratch) {
  const int64_t width = short_columns(space);
  int16_t* target = reinterpret_cast<int16_t*>(scratch.rows);
  for (int64_t i = 0; i < count; ++i) {
    scratch.row_units[i] =
        short_row(space, points, rows[i], target + i * width, short_buffer(scratch), scratch.x);
  }
  for (int64_t i = count; i < kTileRows; ++i) scratch.row_units[i] = 0;
  __builtin_memset(target + count * width, 0, (kTileRows - count) * width * sizeof(int16_t));
}

// The same from rows that are packed already: those at places (count,).
inline void take_short_rows(const Space& space, const PackedRows& packed, const int32_t* places,
                            int64_t count, const Scratch& scratch) {
  const int64_t width = short_columns(space);
  int16_t* target = reinterpret_cast<int16_t*>(scratch.rows);
  for (int64_t i = 0; i < kTileRows; ++i) {
    scratch.row_units[i] = i < count ? packed.units[places[i]] : 0;
    if (i < count) {
      __builtin_memcpy(target + i * width, packed.rows + places[i] * width, width * 2);
    } else {
      __builtin_memset(target + i * width, 0, width * 2);
    }
  }
}

// Scratch whose packed centers are those at `at` of the panels.
inline Scratch with_panels(const Space& space, const Scratch& scratch, const Panels& panels,
                           int64_t at) {
  Scratch other = scratch;
  other.centers = panels.centers + at * (short_columns(space) / 2);
  other.low = panels.low + at;
  other.high = panels.high + at;
  other.units = panels.units + at;
  return other;
}

// As multiply_tile: pairs of columns, with units (kTileRows,) and (kVectors * kLanes,).
template <int kVectors>
inline void multiply_short_tile(const int16_t* rows, const float* row_units, const int32_t* panel,
                                const float* units, int64_t width, float* dots, int64_t stride) {
  vi sums[kVectors][kTileRows];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) sums[v][r] = vi{};
  }
  for (int64_t k = 0; k < width / 2; ++k) {
    vi centers[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) centers[v] = load(panel + k * kPanel + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      int32_t pair;
      __builtin_memcpy(&pair, rows + r * width + 2 * k, sizeof pair);
      const vi row = splat(pair);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        add_in_order(&sums[v][r], multiply_pairs(row, centers[v]));
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const vf sum = __builtin_convertvector(sums[v][r], vf);
      store(dots + r * stride + v * kLanes, (sum * row_units[r]) * load(units + v * kLanes));
    }
  }
}

// Whether `count` dot products are computed in integers.
inline bool in_shorts(const Space& space, int64_t count) {
  return kHasShorts && space.short_slack > 0 && count * space.columns >= kShortWork;
}

// As multiply_panels.
inline void multiply_short_panels(const Space& space, const Scratch& scratch, int64_t begin,
                                  int64_t end, int64_t stride) {
  const int64_t width = short_columns(space);
  const int16_t* rows = reinterpret_cast<const int16_t*>(scratch.rows);
  for (int64_t c = begin; c < end; c += kPanel) {
    const int32_t* panel = reinterpret_cast<const int32_t*>(scratch.centers) + c * (width / 2);
    const auto multiply = end - c > kLanes ? multiply_short_tile<2> : multiply_short_tile<1>;
    multiply(rows, scratch.row_units, panel, scratch.units + c, width, scratch.dots + c, stride);
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
