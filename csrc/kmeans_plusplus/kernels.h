// The kernels of D^2 sampling, as every instruction set has them. Each does what the function of
// the same name in kmeans_plusplus.h does, with working memory.
#pragma once

#include "../farthest_first/kernels.h"
#include "kmeans_plusplus.h"

namespace dynal {
namespace kmeans_plusplus {

struct Kernels {
  int64_t (*advance)(const Space& space, const Points& x, const Points& y, const Stale& stale,
                     const Fired& fired, const Clocks& clocks, const farthest_first::Work& work);
  Picked (*race)(const Space& space, const Points& x, const Field& field, const Clocks& clocks,
                 const Finish& finish, const farthest_first::HeadMemory& memory, double* times,
                 const farthest_first::Work& work);
};

}  // namespace kmeans_plusplus
}  // namespace dynal
