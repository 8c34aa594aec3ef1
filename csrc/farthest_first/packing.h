// Rows of a call in integers, each packed once.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"

namespace dynal {
namespace farthest_first {

constexpr int64_t kPackedBytes = int64_t{1} << 26;  // of rows in one call, at most

// The pairs of a call, with every row that several groups have packed before. They refer to what
// the call was given, and to this.
class Packing {
 public:
  Packing(const Pairs& pairs, const Work& work);

  const Pairs& pairs() const { return pairs_; }

 private:
  // The distinct rows of the groups; places_ says where each is among them.
  std::vector<int32_t> distinct(int64_t most);

  Pairs pairs_;
  std::vector<int32_t> places_;
  std::vector<float> units_;
  std::unique_ptr<int16_t[]> rows_;
  PackedRows packed_{};
};

}  // namespace farthest_first
}  // namespace dynal
