#include "farthest_first.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../common/cpu.h"

namespace dynal {
namespace farthest_first {
namespace {

constexpr int64_t kSlotValues = 1 << 20;  // dot products inside a head that are kept
constexpr int64_t kBlockBytes = 1 << 20;  // packed centers of one thread: its share of a cache

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

int64_t center_block(int64_t columns) {
  const int64_t fitting = kBlockBytes / static_cast<int64_t>(sizeof(float)) / columns;
  return std::min<int64_t>(512, std::max(kMaxPanel, fitting / kMaxPanel * kMaxPanel));
}

// One Scratch per thread, with room for `block` packed centers each.
class Workspace {
 public:
  Workspace(int64_t columns, int64_t block, int threads) : work_(threads * kCacheLine) {
    const int64_t padded = round_up(columns, 16);
    const int64_t floats = padded * (block + kMaxTileRows + 4) + block * (kMaxTileRows + 2);
    for (int t = 0; t < threads; ++t) {
      // Left uninitialised: every kernel writes what it reads, and pages unused cost nothing.
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

  std::vector<Scratch> scratches;

 private:
  static constexpr int64_t kCacheLine = 8;
  std::vector<int64_t> work_;
  std::vector<std::unique_ptr<float[]>> memory_;
};

}  // namespace

#ifdef DYNAL_X86_64
#define DYNAL_DISPATCH(function, ...)         \
  switch (active_isa()) {                     \
    case Isa::avx512:                         \
      return avx512::function(__VA_ARGS__);   \
    case Isa::avx2:                           \
      return avx2::function(__VA_ARGS__);     \
    default:                                  \
      return baseline::function(__VA_ARGS__); \
  }
#else
#define DYNAL_DISPATCH(function, ...) return baseline::function(__VA_ARGS__);
#endif

// The bound of the filter. u = 2^-24, d = columns, x' the exact row (centered or scaled), A =
// |x'|^2 and B = |y'|^2, a and b the rows as the filter sees them.
//   1. Each a[k] is x'[k] but for a relative error of at most 3 u (euclidean: one rounding of the
//      difference; cosine: the scale and the product), so 2 a.b is 2 x'.y' but for 7 u * 2
//      |x'||y'|, which is at most 7 u (A + B).
//   2. The stored norms, those of x' and y', are rounded twice at most: 2 u (A + B).
//   3. A float32 dot product, in any order, errs by at most g |a| |b| <= g (A + B) / 2 with
//      g = d u / (1 - d u); it enters twice.
//   4. The three operations that put a bound together, and the two that make each of its terms,
//      are rounded: at most 8 u (A + B).
// In sum (g + 17 u) (A + B), of which g + 32 u leaves 15 u for the second-order terms. Underflow
// adds less than 2^-100 in all (d products below 2^-126 each), and is covered by `absolute`, as is
// the rounding of a cosine distance to a multiple of 2^-23. The rounding of a squared distance to
// float32 needs nothing: a float32 number below it stays below. Rows are scaled to norms below 2^60
// (reference.py), so that nothing overflows.
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
  Workspace work(space.columns, kMaxPanel, threads);
  DYNAL_DISPATCH(ff_measure, space, points, begin, end, measures, work.scratches.data(), threads)
}

int64_t distances(const Space& space, const Points& x, const Points& y, const Groups& groups,
                  float* lower, float* upper, Share share, int threads) {
  const int64_t block = center_block(space.columns);
  Workspace work(space.columns, block, threads);
  DYNAL_DISPATCH(ff_distances, space, x, y, groups, lower, upper, block, work.scratches.data(),
                 share, threads)
}

int64_t bound(const Space& space, const Points& x, const Points& y, const Groups& groups,
              float* bound, Share share, int threads) {
  const int64_t block = center_block(space.columns);
  Workspace work(space.columns, block, threads);
  DYNAL_DISPATCH(ff_bound, space, x, y, groups, bound, block, work.scratches.data(), share, threads)
}

int64_t refresh(const Space& space, const Points& x, const Points& y, const Groups& groups,
                const int32_t* first, const float* bound, float* exact, Share share, int threads) {
  const int64_t block = center_block(space.columns);
  Workspace work(space.columns, block, threads);
  DYNAL_DISPATCH(ff_refresh, space, x, y, groups, first, bound, exact, block, work.scratches.data(),
                 share, threads)
}

int64_t assign(const Space& space, const Points& x, const Points& y, const Groups& groups,
               const int32_t* ranks, const float* bound, int64_t* keys, Share share, int threads) {
  const int64_t block = center_block(space.columns);
  Workspace work(space.columns, block, threads);
  DYNAL_DISPATCH(ff_assign, space, x, y, groups, ranks, bound, keys, block, work.scratches.data(),
                 share, threads)
}

Picked traverse(const Space& space, const Points& x, const int32_t* head, int64_t count,
                int64_t outside, float* exact, int32_t* picks, float* values, int64_t limit,
                int64_t work, int threads) {
  const int64_t padded = round_up(count, kMaxPanel);
  Workspace packed(space.columns, padded, 1), each(space.columns, kMaxPanel, threads);
  const int64_t slots = std::max(kMaxTileRows, std::min(count, kSlotValues / padded));
  std::unique_ptr<float[]> products(new float[(slots + 1) * padded]);
  std::vector<int32_t> slot_numbers(count + slots);
  DYNAL_DISPATCH(ff_traverse, space, x, head, count, outside, exact, picks, values, limit,
                 each.scratches.data(), packed.scratches[0], products.get(), slot_numbers.data(),
                 slots, work, threads)
}

}  // namespace farthest_first
}  // namespace dynal
