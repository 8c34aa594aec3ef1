#include "farthest_first.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../isa/kernels.h"

namespace dynal {
namespace farthest_first {
namespace {

constexpr int64_t kSlotValues = 1 << 20;  // dot products that a traversal keeps
constexpr int64_t kBlockBytes = 1 << 20;  // packed centers of a thread: its share of the cache

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

int64_t center_block(int64_t columns) {
  const int64_t fitting = kBlockBytes / static_cast<int64_t>(sizeof(float)) / columns;
  return std::min<int64_t>(512, std::max(kMaxPanel, fitting / kMaxPanel * kMaxPanel));
}

// A Scratch per thread, with room for a block of packed centers each.
class Workspace {
 public:
  Workspace(int64_t columns, int threads) : Workspace(columns, center_block(columns), threads) {}

  Workspace(int64_t columns, int64_t block, int threads)
      : block_(block), work_(threads * kCacheLine) {
    const int64_t padded = round_up(columns, 16);
    const int64_t floats = padded * (block + kMaxTileRows + 4) + block * (kMaxTileRows + 2);
    for (int t = 0; t < threads; ++t) {
      // Uninitialised: the kernels write before they read, and unused pages cost nothing.
      memory_.emplace_back(new float[floats + 16]);
      float* next = memory_.back().get();
      next += (64 - reinterpret_cast<uintptr_t>(next) % 64) % 64 / sizeof(float);
      auto take = [&](int64_t count) {
        float* taken = next;
        next += count;
        return taken;
      };
      Scratch scratch;
      scratch.centers = take(padded * block);
      scratch.rows = take(padded * kMaxTileRows);
      scratch.dots = take(kMaxTileRows * block);
      scratch.low = take(block);
      scratch.high = take(block);
      scratch.x = take(2 * padded);
      scratch.y = take(2 * padded);
      scratch.work = &work_[t * kCacheLine];
      scratches.push_back(scratch);
    }
  }

  Work work(Share share) const {
    return {scratches.data(), block_, share, static_cast<int>(scratches.size())};
  }

  std::vector<Scratch> scratches;

 private:
  static constexpr int64_t kCacheLine = 8;  // numbers of 64 bits
  int64_t block_;
  std::vector<int64_t> work_;
  std::vector<std::unique_ptr<float[]>> memory_;
};

}  // namespace

// The error bound of the filter. Let u = 2^-24, d = columns, x' and y' the exact rows (centered or
// scaled), A = |x'|^2, B = |y'|^2, and a and b the rows as the filter sees them.
//   1. The relative error of each a[k] is at most 3 u (euclidean: one rounding of the difference;
//      cosine: the scale and the product). So 2 a.b differs from 2 x'.y' by at most
//      7 u * 2 |x'||y'| <= 7 u (A + B).
//   2. The stored norms of x' and y' are rounded at most twice: 2 u (A + B).
//   3. The error of a float32 dot product, in any order, is at most g |a| |b| <= g (A + B) / 2 with
//      g = d u / (1 - d u). The product enters twice.
//   4. The three operations that combine the terms of a bound, and the two that compute each term,
//      are rounded: at most 8 u (A + B).
// The sum is (g + 17 u) (A + B); the slack of g + 32 u leaves 15 u for terms of second order.
// `absolute` covers underflow, less than 2^-100 in all (d products below 2^-126 each), and the
// rounding of a cosine distance to a multiple of 2^-23. The rounding of a squared distance to
// float32 needs no slack: a float32 number below the exact value is not above the rounded one.
// Nothing overflows, because rows are scaled to norms below 2^60 (reference.py).
Space make_space(int64_t columns, bool cosine, const float* mean, int exponent) {
  const double unit = 0x1p-24, d = static_cast<double>(columns);
  const double slack = 1.01 * (d * unit / (1 - d * unit) + 32 * unit);
  const double scale = std::ldexp(1.0, exponent);
  return {columns,
          cosine,
          mean,
          static_cast<float>(scale),
          scale * scale,
          static_cast<float>(slack),
          cosine ? 0x1p-24f : 0x1p-100f};
}

void measure(const Space& space, const Points& points, int64_t begin, int64_t end,
             Measure* measures, int threads) {
  const Workspace memory(space.columns, kMaxPanel, threads);
  kernels().farthest_first.measure(space, points, begin, end, measures, memory.scratches.data(),
                                   threads);
}

int64_t distances(const Pairs& pairs, float* lower, float* upper, Share share, int threads) {
  const Workspace memory(pairs.space.columns, threads);
  return kernels().farthest_first.distances(pairs, lower, upper, memory.work(share));
}

int64_t bound(const Pairs& pairs, float* bound, Share share, int threads) {
  const Workspace memory(pairs.space.columns, threads);
  return kernels().farthest_first.bound(pairs, bound, memory.work(share));
}

int64_t refresh(const Pairs& pairs, const int32_t* first, const float* bound, float* exact,
                Share share, int threads) {
  const Workspace memory(pairs.space.columns, threads);
  return kernels().farthest_first.refresh(pairs, first, bound, exact, memory.work(share));
}

int64_t assign(const Pairs& pairs, const int32_t* ranks, const float* bound, int64_t* keys,
               Share share, int threads) {
  const Workspace memory(pairs.space.columns, threads);
  return kernels().farthest_first.assign(pairs, ranks, bound, keys, memory.work(share));
}

Picked traverse(const Space& space, const Points& x, const Head& head, float* exact,
                const Picks& picks, int64_t work, int threads) {
  const int64_t padded = round_up(head.count, kMaxPanel);
  const Workspace packed(space.columns, padded, 1), memory(space.columns, kMaxPanel, threads);
  const int64_t slots = std::max(kMaxTileRows, std::min(head.count, kSlotValues / padded));
  const std::unique_ptr<float[]> floats(new float[(slots + 1) * padded]);
  std::vector<int32_t> integers(head.count + slots);
  return kernels().farthest_first.traverse(
      space, x, head, exact, picks, {packed.scratches[0], floats.get(), integers.data(), slots},
      memory.work({0, work}));
}

}  // namespace farthest_first
}  // namespace dynal
