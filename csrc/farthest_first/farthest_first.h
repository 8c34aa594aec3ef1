// Farthest-first: the primitives of dynal_fast/ops/farthest_first/kernels.py on the CPU.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace dynal {
namespace farthest_first {

// How distances are measured, and how the filter sees a row, in float32:
//   euclidean  (x[k] - mean[k]) * scale, scale = 2^exponent, in which decision values are, too
//   cosine     x[k] * scale, scale = 1 / (|x| sqrt(2)), so that |a - b|^2 is 1 - similarity
// For two rows a, b so seen, their stored squared norms and any float32 dot product g of them,
// |a|^2 + |b|^2 - 2 g differs from the exact distance and from the decision value by at most
// slack * (|a|^2 + |b|^2) + 2 * absolute (derived at make_space).
struct Space {
  int64_t columns;
  bool cosine;
  const float* mean;  // (columns,), euclidean only
  float scale;        // euclidean only
  double square;      // scale^2
  float slack;
  float absolute;
};

struct Points {
  const char* data;                 // (rows, columns)
  int64_t row_bytes, column_bytes;  // from one to the next, of any sign
  Dtype dtype;
  bool swapped;    // in the other byte order
  bool in_place;   // a row is an aligned array
  float* norms;    // (rows,): squared norms of the rows as the filter sees them
  double* scales;  // (rows,), cosine only
};

// Group g: rows[row_ends[g - 1] : row_ends[g]] with centers[center_ends[g - 1] : center_ends[g]].
struct Groups {
  int64_t count;
  const int32_t* rows;
  const int64_t* row_ends;
  const int32_t* centers;
  const int64_t* center_ends;
};

constexpr int64_t kMaxTileRows = 16;  // rows of the largest register tile
constexpr int64_t kMaxPanel = 32;     // centers of the largest register tile

// Working memory of one thread.
struct Scratch {
  float* centers;  // (columns, block) in panels
  float* rows;     // (kMaxTileRows, columns)
  float* dots;     // (kMaxTileRows, block)
  float* low;      // (block,): the centers' terms of lower bounds
  float* high;     // (block,): and of upper bounds
  void* x;         // (columns,) of up to 8 bytes
  void* y;         // (columns,) of up to 8 bytes
  int64_t* work;   // multiplications done so far, or what took as long
};

// A call goes on from where the one before stopped and stops after `work` multiplications, so that
// none is long; it returns where the next one goes on, kDone if nothing is left.
struct Share {
  int64_t unit, work;
};
constexpr int64_t kDone = -1;

struct Picked {
  int64_t count;
  bool done;
};

// The entry points: each makes the scratch and takes the active instruction set.

Space make_space(int64_t columns, bool cosine, const float* mean, int exponent);

// What is known of a row before its scale is.
struct Measure {
  double squared;   // its squared norm as given
  double centered;  // euclidean: its squared distance from the mean
  double largest;   // its largest magnitude; larger than any number if there is a NaN
};

// Measures rows [begin, end).
void measure(const Space&, const Points&, int64_t begin, int64_t end, Measure*, int threads);

// lower, upper: (rows, centers) of the only group.
int64_t distances(const Space&, const Points& x, const Points& y, const Groups&, float* lower,
                  float* upper, Share, int threads);

int64_t bound(const Space&, const Points& x, const Points& y, const Groups&, float* bound, Share,
              int threads);

int64_t refresh(const Space&, const Points& x, const Points& y, const Groups&, const int32_t* first,
                const float* bound, float* exact, Share, int threads);

// Lowers keys (rows,), of the bits of a decision value above a rank, to that of the nearest center,
// the one of the lowest rank if there are several; ranks (rows of y,).
int64_t assign(const Space&, const Points& x, const Points& y, const Groups&, const int32_t* ranks,
               const float* bound, int64_t* keys, Share, int threads);

// Stops at `limit` picks, where a row outside comes first, or after `work` multiplications; then it
// is not done, and the same call with the picks that remain goes on.
Picked traverse(const Space&, const Points& x, const int32_t* head, int64_t count, int64_t outside,
                float* exact, int32_t* picks, float* values, int64_t limit, int64_t work,
                int threads);

}  // namespace farthest_first

#define DYNAL_DECLARE_FARTHEST_FIRST(isa)                                                         \
  namespace isa {                                                                                 \
  using namespace farthest_first;                                                                 \
  void ff_measure(const Space&, const Points&, int64_t, int64_t, Measure*, Scratch*, int);        \
  int64_t ff_distances(const Space&, const Points&, const Points&, const Groups&, float*, float*, \
                       int64_t, Scratch*, Share, int);                                            \
  int64_t ff_bound(const Space&, const Points&, const Points&, const Groups&, float*, int64_t,    \
                   Scratch*, Share, int);                                                         \
  int64_t ff_refresh(const Space&, const Points&, const Points&, const Groups&, const int32_t*,   \
                     const float*, float*, int64_t, Scratch*, Share, int);                        \
  int64_t ff_assign(const Space&, const Points&, const Points&, const Groups&, const int32_t*,    \
                    const float*, int64_t*, int64_t, Scratch*, Share, int);                       \
  Picked ff_traverse(const Space&, const Points&, const int32_t*, int64_t, int64_t, float*,       \
                     int32_t*, float*, int64_t, Scratch*, const Scratch&, float*, int32_t*,       \
                     int64_t, int64_t, int);                                                      \
  }
DYNAL_DECLARE_FARTHEST_FIRST(baseline)
#ifdef DYNAL_X86_64
DYNAL_DECLARE_FARTHEST_FIRST(avx2)
DYNAL_DECLARE_FARTHEST_FIRST(avx512)
#endif
#undef DYNAL_DECLARE_FARTHEST_FIRST

}  // namespace dynal
