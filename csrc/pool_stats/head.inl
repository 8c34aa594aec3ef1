// The update from features: a linear head computes the logits of a tile of rows, which stay in the
// cache until they are folded into the state.
//
// The weights are packed once a call into panels of kHeadClasses classes, side by side. One step of
// the product multiplies a broadcast feature by a few vectors of weights.

#pragma once

#include "dropout.inl"
#include "update.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

#if DYNAL_VECTOR_BYTES == 64
constexpr int kHeadVectors = 4;  // 6 x 4 sums, 4 weights and a feature in 32 registers
#else
constexpr int kHeadVectors = 2;  // 6 x 2 sums, 2 weights and a feature in 16 registers
#endif
constexpr int kHeadRows = 6;
constexpr int kHeadMostRows = 192;  // of a tile
constexpr int kHeadClasses = kHeadVectors * kLanes;
constexpr int64_t kHeadTileFloats = 1 << 18;  // logits of a tile: 1 MB

inline int64_t panels(int64_t classes) { return (classes + kHeadClasses - 1) / kHeadClasses; }

// Rows of a tile, a multiple of kHeadRows: as many as keep its logits in the cache.
inline int64_t tile_rows(int64_t classes) {
  int64_t rows = kHeadTileFloats / classes;
  rows = rows < 4 * kHeadRows ? 4 * kHeadRows : rows > kHeadMostRows ? kHeadMostRows : rows;
  return rows / kHeadRows * kHeadRows;
}

// Packs panel p of the weights as (width + 1, kHeadClasses): the bias, then a row per feature; zero
// beyond the last class. `line` has room for width floats.
inline void pack_panel(const Head& head, Dtype dtype, int64_t classes, int64_t p, float* packed,
                       float* line) {
  float* panel = packed + p * (head.width + 1) * kHeadClasses;
  for (int64_t j = 0; j < kHeadClasses; ++j) {
    const int64_t c = p * kHeadClasses + j;
    panel[j] = 0;
    if (c < classes) {
      to_floats(row_of(head.weight, dtype, c, head.width), dtype, head.width, line);
      if (head.bias) to_floats(row_of(head.bias, dtype, c, 1), dtype, 1, panel + j);
    }
    for (int64_t k = 0; k < head.width; ++k) {
      panel[(k + 1) * kHeadClasses + j] = c < classes ? line[k] : 0;
    }
  }
}

// Multiplies the features of kHeadRows rows, of `width` each, by a panel. Stores the logits of the
// first `rows` rows and the first `wanted` classes.
inline void multiply(const float* const* features, int64_t width, const float* panel, float* logits,
                     int64_t classes, int64_t rows, int64_t wanted) {
  const float* row[kHeadRows];
  for (int r = 0; r < kHeadRows; ++r) row[r] = features[r];
  vf sums[kHeadRows][kHeadVectors];
  for (int r = 0; r < kHeadRows; ++r) {
    for (int v = 0; v < kHeadVectors; ++v) sums[r][v] = load(panel + v * kLanes);
  }
  for (int64_t k = 0; k < width; ++k) {
    const float* weights = panel + (k + 1) * kHeadClasses;
    vf w[kHeadVectors];
    for (int v = 0; v < kHeadVectors; ++v) w[v] = load(weights + v * kLanes);
    for (int r = 0; r < kHeadRows; ++r) {
      const vf f = splat(row[r][k]);
      for (int v = 0; v < kHeadVectors; ++v) sums[r][v] += f * w[v];
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int v = 0; v < kHeadVectors; ++v) {
      const int64_t left = wanted - v * kLanes;
      float* to = logits + r * classes + v * kLanes;
      if (left >= kLanes) {
        store(to, sums[r][v]);
      } else if (left > 0) {
        store_n(to, sums[r][v], left);
      }
    }
  }
}

// Finds the features of the rows from `begin` on as floats. They are read where they are, or in
// `floats` (rows, width) where they are of another dtype or some of them are dropped. By id they
// are those of the rows' samples; rows that no sample was claimed for are zeros.
inline void take_features(const Head& head, const Batch& batch, const uint8_t* status,
                          int64_t begin, int64_t rows, float* floats, const float** features) {
  const int64_t width = head.width;
  const bool as_they_are = head.dtype == Dtype::float32 && !head.dropout.below;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t id = id_at(batch, begin + r);
    float* to = floats + r * width;
    features[r] = to;
    if (head.by_id && status[begin + r] != claimed) {
      for (int64_t i = 0; i < width; ++i) to[i] = 0;
      continue;
    }
    const char* from = row_of(head.features, head.dtype, head.by_id ? id : begin + r, width);
    if (as_they_are) {
      features[r] = reinterpret_cast<const float*>(from);
      continue;
    }
    to_floats(from, head.dtype, width, to);
    if (head.dropout.below) drop(head.dropout, id, width, to);
  }
}

// Computes the logits (rows, classes) of the rows from `begin` on. `floats` has room for their
// features.
inline void apply_head(const Head& head, const float* packed, const Batch& batch,
                       const uint8_t* status, int64_t classes, int64_t begin, int64_t rows,
                       float* floats, float* logits) {
  const int64_t width = head.width;
  const float* features[kHeadMostRows];
  take_features(head, batch, status, begin, rows, floats, features);
  const int64_t padded_rows = round_up(rows, kHeadRows);
  for (int64_t r = rows; r < padded_rows; ++r) features[r] = features[0];  // not stored
  for (int64_t p = 0; p < panels(classes); ++p) {
    const float* panel = packed + p * (width + 1) * kHeadClasses;
    const int64_t c = p * kHeadClasses;
    for (int64_t r = 0; r < rows; r += kHeadRows) {
      multiply(features + r, width, panel, logits + r * classes + c, classes,
               rows - r < kHeadRows ? rows - r : kHeadRows, classes - c);
    }
  }
}

int64_t packed_floats(int64_t classes, int64_t width) {
  return panels(classes) * (width + 1) * kHeadClasses;
}

void pack_weights(const Head& head, Dtype dtype, int64_t classes, int thread, int threads,
                  float* packed, float* line) {
  for (int64_t p = thread; p < panels(classes); p += threads) {
    pack_panel(head, dtype, classes, p, packed, line);
  }
}

int64_t head_scratch_floats(int64_t classes, int64_t width) {
  return tile_rows(classes) * (2 * classes + width) + scratch_floats(classes);
}

void update_head_rows(const State& state, const Batch& batch, const uint8_t* status, int64_t begin,
                      int64_t end, const float* packed, const float* teacher_packed,
                      float* scratch) {
  const int64_t classes = state.classes, most = tile_rows(classes);
  float* logits = scratch + scratch_floats(classes);
  float* teacher_logits = logits + most * classes;
  float* floats = teacher_logits + most * classes;
  for (int64_t row = begin; row < end; row += most) {
    Batch tile = batch;
    tile.rows = end - row < most ? end - row : most;
    tile.ids = static_cast<const char*>(batch.ids) + row * batch.id_bytes;
    tile.dtype = Dtype::float32;
    tile.logits = logits;
    if (batch.targets) tile.targets = batch.targets + row;
    apply_head(batch.head, packed, batch, status, classes, row, tile.rows, floats, logits);
    if (teacher_packed) {
      tile.teacher_logits = teacher_logits;
      apply_head(batch.teacher_head, teacher_packed, batch, status, classes, row, tile.rows, floats,
                 teacher_logits);
    }
    update_rows(state, tile, status + row, 0, tile.rows, scratch);
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal
