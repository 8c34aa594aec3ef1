// The dense discrepancy, for one instruction set: block by block of pixels, with a pixel in each
// lane. Each logit is read once.
#include "../pool_stats/gather.inl"
#include "dense_discrepancy.h"

namespace dynal {
namespace DYNAL_ISA {
namespace stats {

using dense_discrepancy::Maps;

// The logits (classes, width) of a map's pixels from `first` on become their exponentials e
// (classes, room), relative to the largest, and 1 / sum of e for each pixel. Returns 0, or NaN in
// some lane if a logit is not finite.
inline vf block_softmax(const Maps& maps, const void* map, int64_t first, int64_t width,
                        int64_t room, float* e, float* inverse) {
  const int64_t classes = maps.classes;
  for (int64_t c = 0; c < classes; ++c) {
    float* line = e + c * room;
    to_floats(row_of(map, maps.dtype, c * maps.pixels + first, 1), maps.dtype, width, line);
    for (int64_t i = width; i < padded(width); ++i) line[i] = 0;
  }
  vf odd = {};
  for (int64_t i = 0; i < width; i += kLanes) {
    vf top = load(e + i), sum = {};
    for (int64_t c = 0; c < classes; ++c) {
      const vf x = load(e + c * room + i);
      top = maximum(top, x);
      odd += x * 0.0f;
    }
    for (int64_t c = 0; c < classes; ++c) {
      const vf y = exp_nonpositive(load(e + c * room + i) - top);
      store(e + c * room + i, y);
      sum += y;
    }
    store(inverse + i, 1.0f / sum);
  }
  return odd;
}

}  // namespace stats

// Pixels of a block: as many as keep the exponentials of both maps in half of a small L1 cache.
int64_t dense_block(int64_t classes) {
  const int64_t fitting = stats::kBlockFloats / (2 * classes) / stats::kLanes * stats::kLanes;
  return fitting < stats::kLanes ? stats::kLanes : fitting;
}

// Blocks begin <= b < end of an image: sums[b] becomes that of ||p - q||_2^2 over block b.
// `scratch` has room for 2 (classes + 1) floats per pixel of a block.
void dense_blocks(const dense_discrepancy::Maps& maps, int64_t begin, int64_t end, float* scratch,
                  double* sums) {
  using namespace stats;
  const int64_t classes = maps.classes, room = dense_block(classes);
  float *e = scratch, *f = e + classes * room, *p = f + classes * room, *q = p + room;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t first = b * room, left = maps.pixels - first, width = left < room ? left : room;
    vf squares = block_softmax(maps, maps.logits, first, width, room, e, p) +
                 block_softmax(maps, maps.other, first, width, room, f, q);
    for (int64_t i = 0; i < width; i += kLanes) {
      const vf mine = load(p + i), theirs = load(q + i);
      for (int64_t c = i; c < classes * room; c += room) {
        const vf d = kept(load(e + c) * mine) - kept(load(f + c) * theirs);
        squares += d * d;
      }
    }
    sums[b] = 0;
    for (int i = 0; i < kLanes; ++i) sums[b] += squares[i];
  }
}

}  // namespace DYNAL_ISA
}  // namespace dynal
