// Centers in clusters, packed for many calls.
#pragma once

#include <memory>
#include <vector>

#include "farthest_first.h"

namespace dynal {

struct Kernels;

namespace farthest_first {

// Whether the filter multiplies integers in a space: else nothing is packed.
bool packs(const Space& space);

// The centroids of clusters, and their members, in integers.
class Clusters {
 public:
  // Cluster g has members[ends[g - 1] : ends[g]], rows of y, as centroids (count,) are.
  Clusters(const Space& space, const Points& y, const int32_t* centroids, const int32_t* members,
           const int64_t* ends, int64_t count, int threads);

  int64_t count() const { return count_; }
  int64_t largest() const { return largest_; }  // members of a cluster
  const int32_t* members() const { return members_; }
  const int64_t* ends() const { return ends_; }
  const Panels& centroids() const { return centroids_; }

  // The members; null where another instruction set is active than when they were packed.
  const Panels* panels() const;

 private:
  int64_t count_, largest_ = 1;
  const int32_t* members_;
  const int64_t* ends_;
  const dynal::Kernels* packed_for_;
  std::vector<int64_t> begins_;
  std::unique_ptr<float[]> memory_;
  Panels centroids_, panels_;
};

}  // namespace farthest_first
}  // namespace dynal
