// The dense discrepancy for one instruction set, a block of pixels at a time, with a pixel in each
// lane. Each logit is read once.
#pragma once

#include "../common/elements.inl"
#include "../common/vector.inl"
#include "kernels.h"

namespace dynal {
namespace dense_discrepancy {
namespace DYNAL_ISA {
namespace {

using namespace dynal::DYNAL_ISA;

// Replaces the logits (classes, width) of a map's pixels from `first` on by their exponentials e
// (classes, room), relative to the largest logit, and 1 / sum of e for each pixel. Returns 0, or
// NaN in some lane if a logit is not finite.
inline vf softmax_block(const Maps& maps, const void* map, int64_t first, int64_t width,
                        int64_t room, float* e, float* inverse) {
  const int64_t classes = maps.classes;
  for (int64_t c = 0; c < classes; ++c) {
    float* line = e + c * room;
    to_floats(row_of(map, maps.dtype, c * maps.pixels + first, 1), maps.dtype, width, line);
    for (int64_t i = width; i < round_up(width, kLanes); ++i) line[i] = 0;
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

// The exponentials of both maps fill half of a small L1 cache.
int64_t block_pixels(int64_t classes) {
  const int64_t fitting = kHalfL1Floats / (2 * classes) / kLanes * kLanes;
  return fitting < kLanes ? kLanes : fitting;
}

void sum_blocks(const Maps& maps, int64_t begin, int64_t end, float* scratch, double* sums) {
  const int64_t classes = maps.classes, room = block_pixels(classes);
  float *e = scratch, *f = e + classes * room, *p = f + classes * room, *q = p + room;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t first = b * room, left = maps.pixels - first, width = left < room ? left : room;
    vf squares = softmax_block(maps, maps.logits, first, width, room, e, p) +
                 softmax_block(maps, maps.other, first, width, room, f, q);
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

constexpr Kernels kKernels = {block_pixels, sum_blocks};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace dense_discrepancy
}  // namespace dynal
