#include "clusters.h"

#include <algorithm>

#include "../common/team.h"
#include "../isa/kernels.h"
#include "workspace.h"

namespace dynal {
namespace farthest_first {
namespace {

int64_t panel_floats(const Space& space) { return round_up(space.columns, 8) / 2; }

// Takes memory for `padded` centers.
Panels take_panels(const Space& space, int64_t padded, const int64_t* begins, float** next) {
  auto take = [&](int64_t count) {
    float* taken = *next;
    *next += count;
    return taken;
  };
  Panels panels;
  panels.centers = take(padded * panel_floats(space));
  panels.low = take(padded);
  panels.high = take(padded);
  panels.units = take(padded);
  panels.begins = begins;
  return panels;
}

}  // namespace

bool packs(const Space& space) {
  return space.short_slack > 0 && kernels().farthest_first.has_shorts;
}

Clusters::Clusters(const Space& space, const Points& y, const int32_t* centroids,
                   const int32_t* members, const int64_t* ends, int64_t count, int threads)
    : count_(count), members_(members), ends_(ends), packed_for_(&kernels()), begins_(count + 1) {
  for (int64_t g = 0; g < count; ++g) {
    largest_ = std::max(largest_, size_of(ends, g));
    begins_[g + 1] = begins_[g] + round_up(size_of(ends, g), kMaxPanel);
  }
  const int64_t padded = begins_[count], around = round_up(count, kMaxPanel);
  memory_.reset(new float[(padded + around) * (panel_floats(space) + 3) + 16]);
  float* next = memory_.get();
  next += (64 - reinterpret_cast<uintptr_t>(next) % 64) % 64 / sizeof(float);
  panels_ = take_panels(space, padded, begins_.data(), &next);
  centroids_ = take_panels(space, around, begins_.data(), &next);
  const Workspace memory(space.columns, kMaxPanel, threads);
  const auto pack = packed_for_->farthest_first.pack;
  pack(space, y, centroids, count, centroids_, 0, memory.scratches[0]);
  int64_t group = 0;
  in_parts(threads, [&](int part) {
    while (true) {
      const int64_t g = __atomic_fetch_add(&group, 1, __ATOMIC_RELAXED);
      if (g >= count) break;
      pack(space, y, members + begin_of(ends, g), size_of(ends, g), panels_, begins_[g],
           memory.scratches[part]);
    }
  });
}

const Panels* Clusters::panels() const { return &kernels() == packed_for_ ? &panels_ : nullptr; }

// Rows are packed and probed so many at a time, at most: they stay in the cache.
constexpr int64_t kChunkRows = 8192, kChunkBytes = int64_t{1} << 23;

int64_t probe(const Space& space, const Points& x, const Points& y, const int32_t* rows,
              int64_t count, const Clusters& clusters, int64_t probes, float* bound, Share share,
              int threads) {
  const auto& kernels = dynal::kernels().farthest_first;
  const int64_t width = round_up(space.columns, 8), total = clusters.count();
  const int64_t in_a_share = share.work / (space.columns * probes * clusters.largest());
  const int64_t fitting = std::min({kChunkRows, kChunkBytes / (2 * width), in_a_share});
  const int64_t chunk = std::min(count, std::max<int64_t>(256, fitting));
  const Workspace memory(space.columns, threads);
  const Workspace around(space.columns, round_up(total, kMaxPanel) + kMaxPanel, threads);
  std::unique_ptr<int16_t[]> packed(new int16_t[chunk * width]);
  std::vector<float> units(chunk);
  std::vector<int32_t> nearest(chunk * probes), places(chunk * probes), probed(chunk * probes);
  std::vector<int64_t> ends(total);
  const PackedRows packed_rows{packed.get(), units.data(), places.data()};
  int64_t begin = share.unit, done = 0;
  for (; begin < count && done < share.work; begin += chunk) {
    const int64_t here = std::min(chunk, count - begin);
    kernels.nearest(space, x, rows + begin, here, {clusters.centroids(), total}, probes,
                    packed_rows, nearest.data(), around.work(share));
    // The rows of each cluster, in order.
    std::fill(ends.begin(), ends.end(), 0);
    for (int64_t i = 0; i < here * probes; ++i) ++ends[nearest[i]];
    int64_t before = 0;
    for (int64_t g = 0; g < total; ++g) {
      const int64_t size = ends[g];
      done += size * size_of(clusters.ends(), g) * space.columns;
      ends[g] = before;
      before += size;
    }
    for (int64_t i = 0; i < here * probes; ++i) {
      const int64_t at = ends[nearest[i]]++;
      places[at] = static_cast<int32_t>(i / probes);
      probed[at] = rows[begin + i / probes];
    }
    done += here * total * space.columns;
    const Groups groups{total, probed.data(), ends.data(), clusters.members(), clusters.ends()};
    const Pairs pairs{space, x, y, groups, clusters.panels(), &packed_rows};
    kernels.bound(pairs, bound, memory.work({0, INT64_MAX}));
  }
  return begin < count ? begin : kDone;
}

}  // namespace farthest_first
}  // namespace dynal
