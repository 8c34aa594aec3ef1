#include "kmeans_plusplus.h"

#include <vector>

#include "../farthest_first/workspace.h"
#include "../isa/kernels.h"

namespace dynal {
namespace kmeans_plusplus {

using farthest_first::HeadWorkspace;
using farthest_first::kMaxPanel;
using farthest_first::Workspace;

int64_t advance(const Space& space, const Points& x, const Points& y, const Stale& stale,
                const Fired& fired, const Clocks& clocks, Share share, int threads) {
  const Workspace memory(space.columns, threads);
  return kernels().kmeans_plusplus.advance(space, x, y, stale, fired, clocks, memory.work(share));
}

Picked race(const Space& space, const Points& x, const Field& field, const Clocks& clocks,
            const Finish& finish, int64_t work, int threads) {
  HeadWorkspace packed(space.columns, field.count);
  const Workspace memory(space.columns, kMaxPanel, threads);
  std::vector<double> times(field.count);
  return kernels().kmeans_plusplus.race(space, x, field, clocks, finish, packed.memory(),
                                        times.data(), memory.work({0, work}));
}

}  // namespace kmeans_plusplus
}  // namespace dynal
