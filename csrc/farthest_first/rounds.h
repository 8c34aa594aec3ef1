// Rounds of dynal_fast/ops/farthest_first/heads.py in one call, for problems so small that a call
// of Python for each step would take longer than the step.
#pragma once

#include <vector>

#include "farthest_first.h"

namespace dynal {
namespace farthest_first {

// Labeled samples that are one cluster: rows `members` of `points`.
struct Cluster {
  Points points;
  const int32_t* members;  // (count,)
  int64_t count;
  int8_t* stage;  // (rows of x,): `exact` where a row was compared with all of them
  int8_t exact;
};

// What `HeadTraversal` knows of the rows of x, and its picks.
struct Known {
  const int32_t* candidates;  // (candidate_count,), increasing
  int64_t candidate_count;
  float* bound;
  float* exact;
  int32_t* applied;
  int32_t* picks;  // (limit,)
  float* values;   // (limit,)
};

struct Ended {
  int64_t count;  // picks so far
  float left;     // the largest decision value that is left; only where it is done
  bool done;
};

// Goes on from `count` picks to `limit`, for at most so many rounds, with `head` rows in a head.
Ended rounds(const Space& space, const Points& x, const std::vector<Cluster>& clusters,
             const Known& known, int64_t count, int64_t limit, int64_t head, int64_t rounds,
             int threads);

}  // namespace farthest_first
}  // namespace dynal
