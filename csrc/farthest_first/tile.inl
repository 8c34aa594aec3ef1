// The float32 matrix product of the filter: rows and centers are packed as the filter sees them,
// and multiplied in register tiles.
#pragma once

#include "../common/team.h"
#include "rows.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

#if DYNAL_VECTOR_BYTES == 64
constexpr int kTileRows = 14;  // 28 accumulators, 2 vectors of centers, 1 broadcast: 32 registers
#else
constexpr int kTileRows = 6;  // 12 + 2 + 1 of 16 registers
#endif
constexpr int kPanel = 2 * kLanes;  // centers per register tile

// Threads that `work` multiplications are worth, at most `threads`: to wake one takes some 10 us.
inline int threads_for(int64_t work, int threads) {
  const int64_t worth = 1 + work / (int64_t{1} << 20);
  return worth < threads ? static_cast<int>(worth) : threads;
}

template <typename T>
inline void scale_row(const Matrix& matrix, int64_t columns, double scale, int64_t row,
                      float* target, void* buffer) {
  const T* values = exact_row<T>(matrix, columns, row, buffer);
  for (int64_t k = 0; k < columns; ++k) target[k] = float(values[k] * scale);
}

inline void scale_factor(const Matrix& matrix, int64_t columns, double scale, int64_t row,
                         float* target, void* buffer) {
  if (is_wide(matrix)) {
    scale_row<double>(matrix, columns, scale, row, target, buffer);
  } else {
    scale_row<float>(matrix, columns, scale, row, target, buffer);
  }
}

inline bool is_product(const Space& space) { return space.left < space.columns; }

// Computes row `row` as the filter sees it, at target (columns,).
inline void filter_row(const Space& space, const Points& points, int64_t row, float* target,
                       void* buffer) {
  const int64_t columns = space.columns;
  if (is_product(space)) {
    scale_factor(points, space.left, points.left_scale, row, target, buffer);
    scale_factor(points.right, columns - space.left, space.scale / points.left_scale, row,
                 target + space.left, buffer);
  } else if (is_wide(points)) {
    const double* values = exact_row<double>(points, columns, row, buffer);
    const double scale = space.cosine ? points.scales[row] : space.scale;
    if (space.cosine) {
      for (int64_t k = 0; k < columns; ++k) target[k] = float(values[k] * scale);
    } else {
      for (int64_t k = 0; k < columns; ++k) target[k] = float((values[k] - space.mean[k]) * scale);
    }
  } else {
    const float* values = exact_row<float>(points, columns, row, buffer);
    const float unit = static_cast<float>(space.scale);
    if (space.cosine) {
      const double scale = points.scales[row];
      for (int64_t k = 0; k < columns; ++k) target[k] = float(values[k] * scale);
    } else {
      for (int64_t k = 0; k < columns; ++k) target[k] = (values[k] - space.mean[k]) * unit;
    }
  }
}

// The terms of a center in its lower and upper bounds, at `at`; without one they are infinite.
inline void set_terms(const Space& space, float slack, const Points& points, const int32_t* center,
                      int64_t at, const Scratch& scratch) {
  scratch.low[at] = scratch.high[at] = __builtin_inff();
  if (!center) return;
  scratch.low[at] = points.norm(*center) * (1 - slack) - space.absolute;
  scratch.high[at] = points.norm(*center) * (1 + slack) + space.absolute;
}

// Packs centers into panels (columns, kPanel) and computes the norm terms of their bounds. The last
// panel is padded with centers whose bounds are infinite.
inline void pack_centers(const Space& space, const Points& points, const int32_t* centers,
                         int64_t count, const Scratch& scratch) {
  const int64_t columns = space.columns;
  float* rows = scratch.rows;  // up to kLanes rows at a time
  for (int64_t c = 0; c < round_up(count, kPanel); c += kLanes) {
    const int64_t here = count - c < kLanes ? (count > c ? count - c : 0) : kLanes;
    for (int64_t i = 0; i < here; ++i) {
      filter_row(space, points, centers[c + i], rows + i * columns, scratch.x);
      set_terms(space, space.slack, points, &centers[c + i], c + i, scratch);
    }
    for (int64_t i = here; i < kLanes; ++i) {
      __builtin_memset(rows + i * columns, 0, columns * sizeof(float));
      set_terms(space, space.slack, points, nullptr, c + i, scratch);
    }
    float* panel = scratch.centers + c / kPanel * kPanel * columns + c % kPanel;
    for (int64_t k = 0; k < columns; k += 4) {
      const int64_t some = columns - k < 4 ? columns - k : 4;
      vf packed[4];
      load_columns([&](int i) { return rows + i * columns + k; }, some, packed);
      for (int64_t j = 0; j < some; ++j) store(panel + (k + j) * kPanel, packed[j]);
    }
  }
}

// Packs rows (count,) into scratch.rows (kTileRows, columns), padded with zeros.
inline void pack_rows(const Space& space, const Points& points, const int32_t* rows, int64_t count,
                      const Scratch& scratch) {
  for (int64_t i = 0; i < count; ++i) {
    filter_row(space, points, rows[i], scratch.rows + i * space.columns, scratch.x);
  }
  __builtin_memset(scratch.rows + count * space.columns, 0,
                   (kTileRows - count) * space.columns * sizeof(float));
}

// dots[r * stride + c] = rows[r] . panel[:, c] for kTileRows rows, row_stride apart, and
// kVectors * kLanes centers.
template <int kVectors>
inline void multiply_tile(const float* rows, int64_t row_stride, const float* panel,
                          int64_t columns, float* dots, int64_t stride) {
  vf sums[kVectors][kTileRows];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) sums[v][r] = vf{};
  }
  for (int64_t k = 0; k < columns; ++k) {
    vf centers[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) centers[v] = load(panel + k * kPanel + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const vf row = splat(rows[r * row_stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[v][r] += row * centers[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      store(dots + r * stride + v * kLanes, sums[v][r]);
    }
  }
}

// The same for rows and centers of a space: of outer products, the product of two dot products.
template <int kVectors>
inline void multiply_panel(const Space& space, const float* rows, const float* panel, float* dots,
                           int64_t stride) {
  const int64_t columns = space.columns, left = space.left;
  multiply_tile<kVectors>(rows, columns, panel, left, dots, stride);
  if (!is_product(space)) return;
  float right[kTileRows * kPanel];
  multiply_tile<kVectors>(rows + left, columns, panel + left * kPanel, columns - left, right,
                          kPanel);
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      float* at = dots + r * stride + v * kLanes;
      store(at, load(at) * load(right + r * kPanel + v * kLanes));
    }
  }
}

// dots[r * stride + c] for the packed centers from the panel of `begin` up to `end`.
inline void multiply_panels(const Space& space, const float* rows, const float* centers,
                            int64_t begin, int64_t end, float* dots, int64_t stride) {
  for (int64_t c = begin; c < end; c += kPanel) {
    const float* panel = centers + c * space.columns;
    if (end - c > kLanes) {
      multiply_panel<2>(space, rows, panel, dots + c, stride);
    } else {
      multiply_panel<1>(space, rows, panel, dots + c, stride);
    }
  }
}

// Prefetches the rows that are packed next, in so many parts: all at once they would hold up what
// the CPU does meanwhile.
class Prefetch {
 public:
  Prefetch(const Matrix& matrix, int64_t columns, const int32_t* rows, int64_t count, int64_t parts)
      : matrix_(matrix), rows_(rows) {
    const int64_t size = item_bytes(matrix.dtype), bytes = columns * size;
    lines_ = bytes < 4096 ? (bytes + 63) / 64 : 64;
    left_ = matrix.column_bytes == size ? count * lines_ : 0;
    part_ = (left_ + parts - 1) / parts;
  }

  void part() {
    for (int64_t i = 0; i < part_ && left_ > 0; ++i) {
      --left_;
      const char* row = matrix_.data + rows_[left_ / lines_] * matrix_.row_bytes;
      __builtin_prefetch(row + left_ % lines_ * 64, 0, 2);
    }
  }

 private:
  const Matrix& matrix_;
  const int32_t* rows_;
  int64_t lines_, left_, part_;  // of 64 bytes: in a row, in all rows, in a part
};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
