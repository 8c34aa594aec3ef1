// D^2 sampling as a race: the primitives of dynal_fast/ops/kmeans_plusplus/kernels.py on the CPU.
#pragma once

#include "../farthest_first/farthest_first.h"

namespace dynal {
namespace kmeans_plusplus {

using farthest_first::Picked;
using farthest_first::Points;
using farthest_first::Share;
using farthest_first::Space;

// What is known of each row of x: its rate and when it fires, (rows of x,) each.
struct Clocks {
  float* rates;    // the decision value to the nearest pick so far
  double* firing;  // times
};

// Picks in order, with the times at which they fired.
struct Fired {
  const int32_t* rows;  // of y
  const double* times;
  int64_t count;
};

// Rows that have to catch up, sorted by `first`: the position of the first pick that each lacks.
struct Stale {
  const int32_t* rows;
  const int32_t* first;
  int64_t count;
};

// Applies to every stale row the picks that it lacks, in order. A call starts at a unit and returns
// the next one, farthest_first::kDone if nothing is left.
int64_t advance(const Space& space, const Points& x, const Points& y, const Stale& stale,
                const Fired& fired, const Clocks& clocks, Share share, int threads);

// Rows that are picked from, in increasing order; none of the others fires before `outside`.
struct Field {
  const int32_t* rows;  // (count,)
  int64_t count;
  double outside;
};

// Room for the picks, in order: their rates as they fired, and the times; (limit,) each.
struct Finish {
  int32_t* rows;
  float* values;
  double* times;
  int64_t limit;
};

// Lets the field run. It is done at `limit` picks, or when nobody fires before `outside`. After
// about `work` multiplications it returns before that, and the same call with the room that is left
// continues. Picked rows never fire again.
Picked race(const Space& space, const Points& x, const Field& field, const Clocks& clocks,
            const Finish& finish, int64_t work, int threads);

}  // namespace kmeans_plusplus
}  // namespace dynal
