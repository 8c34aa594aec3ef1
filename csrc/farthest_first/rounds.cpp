#include "rounds.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "../isa/kernels.h"
#include "workspace.h"

namespace dynal {
namespace farthest_first {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int64_t kNothing = std::numeric_limits<int64_t>::min();

// As `keys` of heads.py: larger values first, the lower index first among equals.
int64_t key_of(float value, int32_t row) {
  int32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<int64_t>(bits) * (int64_t{1} << 32) + (0x7fffffff - row);
}

int32_t row_of(int64_t key) { return 0x7fffffff - static_cast<int32_t>(key & 0xffffffff); }

class Rounds {
 public:
  Rounds(const Space& space, const Points& x, const std::vector<Cluster>& clusters,
         const Known& known, int64_t head, int threads)
      : space_(space),
        x_(x),
        clusters_(clusters),
        known_(known),
        size_(std::min(head, known.candidate_count)),
        memory_(space.columns, threads),
        packed_(space.columns, std::max<int64_t>(size_, 1)) {
    keys_.reserve(known.candidate_count);
  }

  // One round; whether all picks are made, and then the largest value that is left.
  bool round(int64_t* count, int64_t limit, float* left) {
    const int64_t outside = next_head();
    *left = 0;
    if (head_.empty()) return true;
    if (best_ >> 32 == 0) {  // duplicates remain, lowest indices first
      take_duplicates(count, limit);
      return true;
    }
    for (const Cluster& cluster : clusters_) apply(cluster);
    apply_picks(*count);
    if (*count < limit) {
      const Picks room{known_.picks + *count, known_.values + *count, limit - *count};
      const Head head{head_.data(), static_cast<int64_t>(head_.size()), outside};
      *count += kernels()
                    .farthest_first
                    .traverse(space_, x_, head, known_.exact, room, packed_.memory(), whole())
                    .count;
    }
    int64_t best = kNothing;
    for (const int32_t row : head_) {
      known_.bound[row] = known_.exact[row];
      known_.applied[row] = static_cast<int32_t>(*count);
      best = std::max(best, key_of(known_.exact[row], row));
    }
    if (*count < limit || best <= std::max<int64_t>(outside, -1)) return false;
    *left = known_.exact[row_of(best)];
    return true;
  }

 private:
  // Finds the rows with the highest bounds, and returns the highest key of the others.
  int64_t next_head() {
    keys_.clear();
    head_.clear();
    for (int64_t i = 0; i < known_.candidate_count; ++i) {
      const int32_t row = known_.candidates[i];
      if (known_.bound[row] >= 0) keys_.push_back(key_of(known_.bound[row], row));
    }
    const auto end = keys_.begin() + std::min<int64_t>(size_, keys_.size());
    if (end != keys_.end()) std::nth_element(keys_.begin(), end, keys_.end(), std::greater<>());
    const int64_t outside = end != keys_.end() ? *end : kNothing;
    for (auto key = keys_.begin(); key != end; ++key) head_.push_back(row_of(*key));
    best_ = head_.empty() ? kNothing : *std::max_element(keys_.begin(), end);
    std::sort(head_.begin(), head_.end());
    return outside;
  }

  void take_duplicates(int64_t* count, int64_t limit) {
    for (int64_t i = 0; i < known_.candidate_count && *count < limit; ++i) {
      const int32_t row = known_.candidates[i];
      if (known_.bound[row] != 0) continue;
      known_.picks[*count] = row;
      known_.values[(*count)++] = 0;
      known_.bound[row] = known_.exact[row] = kNever;
    }
  }

  // Makes the rows of the head exact for the labeled samples of a cluster.
  void apply(const Cluster& cluster) {
    rows_.clear();
    for (const int32_t row : head_) {
      if (cluster.stage[row] != cluster.exact) rows_.push_back(row);
      cluster.stage[row] = cluster.exact;
    }
    refresh(cluster.points, cluster.members, cluster.count, nullptr);
  }

  // And for the picks that they lack.
  void apply_picks(int64_t count) {
    rows_.clear();
    for (const int32_t row : head_) {
      if (known_.applied[row] < count) rows_.push_back(row);
    }
    std::sort(rows_.begin(), rows_.end(),
              [&](int32_t a, int32_t b) { return known_.applied[a] < known_.applied[b]; });
    if (rows_.empty()) return;
    const int32_t oldest = known_.applied[rows_.front()];
    first_.clear();
    for (const int32_t row : rows_) first_.push_back(known_.applied[row] - oldest);
    refresh(x_, known_.picks + oldest, count - oldest, first_.data());
  }

  void refresh(const Points& y, const int32_t* centers, int64_t count, const int32_t* first) {
    const int64_t rows = static_cast<int64_t>(rows_.size());
    if (rows == 0 || count == 0) return;
    const Groups groups{1, rows_.data(), &rows, centers, &count};
    kernels().farthest_first.refresh({space_, x_, y, groups}, first, known_.bound, known_.exact,
                                     whole());
    for (const int32_t row : rows_) {
      known_.bound[row] = std::min(known_.bound[row], known_.exact[row]);
    }
  }

  // No share: what is small is done in one go.
  Work whole() const { return memory_.work({0, std::numeric_limits<int64_t>::max()}); }

  const Space& space_;
  const Points& x_;
  const std::vector<Cluster>& clusters_;
  const Known& known_;
  const int64_t size_;
  Workspace memory_;
  HeadWorkspace packed_;
  std::vector<int64_t> keys_;
  std::vector<int32_t> head_, rows_, first_;
  int64_t best_ = kNothing;
};

}  // namespace

Ended rounds(const Space& space, const Points& x, const std::vector<Cluster>& clusters,
             const Known& known, int64_t count, int64_t limit, int64_t head, int64_t rounds,
             int threads) {
  Rounds state(space, x, clusters, known, head, threads);
  Ended ended{count, 0, false};
  for (int64_t i = 0; i < rounds && !ended.done; ++i) {
    ended.done = state.round(&ended.count, limit, &ended.left);
  }
  return ended;
}

}  // namespace farthest_first
}  // namespace dynal
