// Farthest-first: the primitives of dynal_fast/ops/farthest_first/kernels.py on the CPU.
#pragma once

#include <cstdint>

namespace dynal {
namespace farthest_first {

enum Dtype : int { float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3 };

// How distances are measured, and how the filter sees a row, in float32:
//   euclidean  x[k] - mean[k]
//   cosine     x[k] * scale, scale = 1 / (|x| sqrt(2)), so that |a - b|^2 is 1 - similarity
// For two rows a, b so seen, their stored squared norms and any float32 dot product g of them,
// |a|^2 + |b|^2 - 2 g differs from the exact distance and from the decision value by at most
// slack * (|a|^2 + |b|^2) + 2 * absolute (derived at make_space).
struct Space {
  int64_t columns;
  bool cosine;
  const float* mean;  // (columns,), euclidean only
  float slack;
  float absolute;
};

struct Points {
  const void* data;  // (rows, columns), each row contiguous
  int64_t stride;    // elements from row to row
  int dtype;
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

Space make_space(int64_t columns, bool cosine, const float* mean);

// Fills norms (and scales) of rows [begin, end), and their squared norms as given (end - begin,).
void measure(const Space&, const Points&, int64_t begin, int64_t end, double* squared_norms,
             int threads);

// lower, upper: (rows, centers) of the only group.
int64_t distances(const Space&, const Points& x, const Points& y, const Groups&, float* lower,
                  float* upper, Share, int threads);

int64_t bound(const Space&, const Points& x, const Points& y, const Groups&, float* bound, Share,
              int threads);

int64_t refresh(const Space&, const Points& x, const Points& y, const Groups&, const int32_t* first,
                const float* bound, float* exact, Share, int threads);

// Stops at `limit` picks, where a row outside comes first, or after `work` multiplications; then it
// is not done, and the same call with the picks that remain goes on.
Picked traverse(const Space&, const Points& x, const int32_t* head, int64_t count, int64_t outside,
                float* exact, int32_t* picks, float* values, int64_t limit, int64_t work,
                int threads);

}  // namespace farthest_first

#define DYNAL_DECLARE_FARTHEST_FIRST(isa)                                                         \
  namespace isa {                                                                                 \
  using namespace farthest_first;                                                                 \
  void ff_measure(const Space&, const Points&, int64_t, int64_t, double*, Scratch*, int);         \
  int64_t ff_distances(const Space&, const Points&, const Points&, const Groups&, float*, float*, \
                       int64_t, Scratch*, Share, int);                                            \
  int64_t ff_bound(const Space&, const Points&, const Points&, const Groups&, float*, int64_t,    \
                   Scratch*, Share, int);                                                         \
  int64_t ff_refresh(const Space&, const Points&, const Points&, const Groups&, const int32_t*,   \
                     const float*, float*, int64_t, Scratch*, Share, int);                        \
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
