#include "farthest_first.h"

#include <cmath>

#include "../isa/kernels.h"
#include "packing.h"
#include "workspace.h"

namespace dynal {
namespace farthest_first {
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
//
// The error bound in integers (shorts.inl). a is scaled by S = kLength / |a|, to first order, and
// rounded: each element errs by at most 1/2 + 2^-9, the latter for the product with S. So with
// r = 0.502 sqrt(d) / kLength the rounded row, divided by S, differs from a by at most r |a|, and
//   |a.b - its product of integers| <= (2 r + r^2) |a||b| <= (2 r + r^2) (A + B) / 2
// by Cauchy and Schwarz. It enters twice. The sum of integers is exact: in any order it is at most
// the product of the two lengths, below (kLength + 0.502 sqrt(d) + 1)^2 < 2^31 up to 2^20 columns;
// neither leaves an element 16 bits. Its conversion and the two units are rounded, less than 8 u
// together, twice; steps 1, 2 and 4 above are as they were. (2 r + r^2 + 33 u) (A + B) in all; the
// slack leaves 15 u and a hundredth for terms of second order.
// Rows with |a|^2 < kShortestSquare = 2^-120 become zeros. Where |b| >= 2^-46, that errs by less
// than 2 |a||b| <= 2^-13 B, and 2 r is more from 32 columns on. Elsewhere it errs by less than
// 2^-105, which `absolute` covers.
constexpr int64_t kFewestShorts = 32;  // columns: for less the bounds are too wide
constexpr int64_t kMostShorts = int64_t{1} << 20;

double short_slack(int64_t columns) {
  if (columns < kFewestShorts || columns > kMostShorts) return 0;
  const double r = 0.502 * std::sqrt(static_cast<double>(columns)) / kLength;
  return 1.01 * (2 * r + r * r + 48 * 0x1p-24);
}

Space make_space(int64_t columns, bool cosine, const float* mean, int exponent) {
  const double unit = 0x1p-24, d = static_cast<double>(columns);
  const double slack = 1.01 * (d * unit / (1 - d * unit) + 32 * unit);
  const double scale = std::ldexp(1.0, exponent);
  return {columns,
          columns,
          cosine,
          mean,
          scale,
          scale * scale,
          static_cast<float>(slack),
          cosine ? 0x1p-24f : 0x1p-100f,
          static_cast<float>(short_slack(columns))};
}

// The error bound for outer products. Let A = |u|^2 |v|^2, B = |w|^2 |z|^2, and
// P = |u||v||w||z| <= (A + B) / 2. Scaled elements are rounded once, and the product of the two dot
// products once more: to first order it errs by at most (g_left + g_right + 5 u) P, and enters
// twice. Norms and the terms of a bound are rounded as above. So (g_left + g_right + 15 u) (A + B)
// holds, and the slack leaves as much for terms of second order. Scaled elements are below 2^30 /
// sqrt(columns) (products.py): what underflows in a dot product, less than columns 2^-118, is
// multiplied by one below 2^60.
Space make_product_space(int64_t left, int64_t right, int exponent) {
  const double unit = 0x1p-24, columns = static_cast<double>(left + right);
  const double slack = 1.01 * (columns * unit / (1 - columns * unit) + 32 * unit);
  return {left + right,
          left,
          false,
          nullptr,
          std::ldexp(1.0, exponent),
          std::ldexp(1.0, 2 * exponent),
          static_cast<float>(slack),
          static_cast<float>(columns * 0x1p-56),
          0};
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
  const Packing packing(pairs, memory.work(share));
  return kernels().farthest_first.refresh(packing.pairs(), first, bound, exact, memory.work(share));
}

int64_t assign(const Pairs& pairs, const int32_t* ranks, const float* bound, int64_t* keys,
               Share share, int threads) {
  const Workspace memory(pairs.space.columns, threads);
  const Packing packing(pairs, memory.work(share));
  return kernels().farthest_first.assign(packing.pairs(), ranks, bound, keys, memory.work(share));
}

Picked traverse(const Space& space, const Points& x, const Head& head, float* exact,
                const Picks& picks, int64_t work, int threads) {
  HeadWorkspace packed(space.columns, head.count);
  const Workspace memory(space.columns, kMaxPanel, threads);
  return kernels().farthest_first.traverse(space, x, head, exact, picks, packed.memory(),
                                           memory.work({0, work}));
}

}  // namespace farthest_first
}  // namespace dynal
