// Farthest-first: the primitives of dynal_fast/ops/farthest_first/kernels.py on the CPU.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace dynal {
namespace farthest_first {

// How distances are measured, and how the filter sees a row, in float32:
//   euclidean  (x[k] - mean[k]) * scale, scale = 2^exponent; decision values are scaled, too
//   cosine     x[k] * scale, scale = 1 / (|x| sqrt(2)), so that |a - b|^2 is 1 - similarity
// Let a and b be two rows as the filter sees them, |a|^2 and |b|^2 their stored squared norms, and
// g any float32 dot product of them. Then |a|^2 + |b|^2 - 2 g differs from the exact distance, and
// from the decision value, by at most slack * (|a|^2 + |b|^2) + 2 * absolute; see make_space. So it
// does, with short_slack, where g is the dot product of a and b rounded to integers (shorts.inl).
//
// Outer products u v^T are held as two rows, u of `left` columns and v of the others. Then
// <u v^T, u' v'^T> = (u.u') (v.v'), g is a product of two float32 dot products, and the filter sees
//   u[k] * left_scale, v[k] * right_scale, with left_scale * right_scale = 2^exponent.
struct Space {
  int64_t columns;
  int64_t left;  // of outer products; else `columns`
  bool cosine;
  const float* mean;  // (columns,), euclidean only
  double scale;       // 2^exponent
  double square;      // 4^exponent
  float slack;
  float absolute;
  float short_slack;  // 0: the filter multiplies float32 only
};

// The filter in integers: rows are scaled to this length, so that no dot product leaves 32 bits.
constexpr float kLength = 32000;
constexpr float kShortestSquare = 0x1p-120f;  // shorter rows are zeros there

Space make_space(int64_t columns, bool cosine, const float* mean, int exponent);

Space make_product_space(int64_t left, int64_t right, int exponent);

struct Matrix {
  const char* data;                 // (rows, columns)
  int64_t row_bytes, column_bytes;  // strides, of any sign
  Dtype dtype;
  bool swapped;   // not in the machine's byte order
  bool in_place;  // each row is an aligned, contiguous array
};

struct Points : Matrix {
  float* norms;       // (rows,): squared norms of the rows as the filter sees them; null: all 1/2
  double* scales;     // (rows,), cosine only
  Matrix right;       // of outer products: the second factors
  double left_scale;  // and how the filter scales the first ones

  float norm(int64_t row) const { return norms ? norms[row] : 0.5f; }
};

// Group g: rows[row_ends[g - 1] : row_ends[g]] with centers[center_ends[g - 1] : center_ends[g]].
struct Groups {
  int64_t count;
  const int32_t* rows;
  const int64_t* row_ends;
  const int32_t* centers;
  const int64_t* center_ends;
};

// Where group g begins, and how many it has.
inline int64_t begin_of(const int64_t* ends, int64_t g) { return g ? ends[g - 1] : 0; }
inline int64_t size_of(const int64_t* ends, int64_t g) { return ends[g] - begin_of(ends, g); }

// The centers of groups in integers, packed for many calls. Each group begins at a panel.
struct Panels {
  float* centers;             // (padded, columns in pairs)
  float *low, *high, *units;  // (padded,), as in Scratch (kernels.h)
  const int64_t* begins;      // (groups,): where the centers of each group begin
};

// Rows in integers, packed once for all groups that they are in. Position i of Groups::rows is
// rows[places[i]].
struct PackedRows {
  int16_t* rows;          // (count, columns rounded up)
  float* units;           // (count,)
  const int32_t* places;  // (rows of all groups,)
};

// What is compared: the rows of x with the centers of y, group by group. The filter may read either
// of them as packed before, where that is not null.
struct Pairs {
  const Space& space;
  const Points& x;
  const Points& y;
  const Groups& groups;
  const Panels* panels = nullptr;
  const PackedRows* packed = nullptr;
};

// A call starts at a unit and stops after about `work` multiplications, so that no call is long. It
// returns the unit where the next call starts, kDone if nothing is left.
struct Share {
  int64_t unit, work;
};
constexpr int64_t kDone = -1;

// What is known of a row before its scale is.
struct Measure {
  double squared;   // the squared norm of the row as given
  double centered;  // euclidean: its squared distance from the mean
  double largest;   // its largest magnitude; a NaN counts as the largest
};

// Measures rows begin <= row < end.
void measure(const Space& space, const Points& points, int64_t begin, int64_t end,
             Measure* measures, int threads);

// Bounds of all distances: lower and upper (rows, centers) of the only group.
int64_t distances(const Pairs& pairs, float* lower, float* upper, Share share, int threads);

// Lowers bound (rows of x,) to upper bounds of the distances.
int64_t bound(const Pairs& pairs, float* bound, Share share, int threads);

// Lowers exact (rows of x,) to the decision values of the centers from position first (rows,) on,
// or all if it is null. Values above bound (rows of x,) may be left out.
int64_t refresh(const Pairs& pairs, const int32_t* first, const float* bound, float* exact,
                Share share, int threads);

// Lowers keys (rows of x,) to the key of the nearest center: the bits of the decision value above
// the center's rank, so that the lowest rank wins a tie. ranks (rows of y,). Values above bound
// (rows of x,) may be left out.
int64_t assign(const Pairs& pairs, const int32_t* ranks, const float* bound, int64_t* keys,
               Share share, int threads);

class Clusters;  // clusters.h

// Lowers bound (rows of x,) to upper bounds of the distances of rows (count,), from position
// share.unit on, to the members of their `probes` nearest clusters. Only where `packs(space)`.
int64_t probe(const Space& space, const Points& x, const Points& y, const int32_t* rows,
              int64_t count, const Clusters& clusters, int64_t probes, float* bound, Share share,
              int threads);

// Rows that are picked from, and the key of the first row in the order that is not among them.
struct Head {
  const int32_t* rows;  // (count,)
  int64_t count;
  int64_t outside;
};

// Room for the picks, in order, and their decision values, (limit,) each.
struct Picks {
  int32_t* rows;
  float* values;
  int64_t limit;
};

struct Picked {
  int64_t count;
  bool done;
};

// Picks from the head and lowers exact (rows of x,). It is done at `limit` picks, or when the row
// outside comes next. After about `work` multiplications it returns before it is done, and the same
// call with the room that is left continues.
Picked traverse(const Space& space, const Points& x, const Head& head, float* exact,
                const Picks& picks, int64_t work, int threads);

}  // namespace farthest_first
}  // namespace dynal
