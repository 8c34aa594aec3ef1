// Working memory of the kernels, for one call.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.h"

namespace dynal {
namespace farthest_first {

constexpr int64_t kBlockBytes = 1 << 20;  // packed centers of a thread: its share of the cache

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

inline int64_t center_block(int64_t columns) {
  const int64_t fitting = kBlockBytes / static_cast<int64_t>(sizeof(float)) / columns;
  return std::min<int64_t>(512, std::max(kMaxPanel, fitting / kMaxPanel * kMaxPanel));
}

// A Scratch per thread, with room for a block of packed centers each.
class Workspace {
 public:
  Workspace(int64_t columns, int threads) : Workspace(columns, center_block(columns), threads) {}

  Workspace(int64_t columns, int64_t block, int threads)
      : block_(block), work_(threads * kCacheLine) {
    const int64_t padded = round_up(columns, 16);
    const int64_t floats =
        padded * (block + kMaxTileRows + 4) + block * (kMaxTileRows + 3) + kMaxTileRows;
    for (int t = 0; t < threads; ++t) {
      // Uninitialised: the kernels write before they read, and unused pages cost nothing.
      memory_.emplace_back(new float[floats + 16]);
      float* next = memory_.back().get();
      next += (64 - reinterpret_cast<uintptr_t>(next) % 64) % 64 / sizeof(float);
      auto take = [&](int64_t count) {
        float* taken = next;
        next += count;
        return taken;
      };
      Scratch scratch;
      scratch.centers = take(padded * block);
      scratch.rows = take(padded * kMaxTileRows);
      scratch.dots = take(kMaxTileRows * block);
      scratch.low = take(block);
      scratch.high = take(block);
      scratch.units = take(block);
      scratch.row_units = take(kMaxTileRows);
      scratch.x = take(2 * padded);
      scratch.y = take(2 * padded);
      scratch.work = &work_[t * kCacheLine];
      scratches.push_back(scratch);
    }
  }

  Work work(Share share) const {
    return {scratches.data(), block_, share, static_cast<int>(scratches.size())};
  }

  std::vector<Scratch> scratches;

 private:
  static constexpr int64_t kCacheLine = 8;  // numbers of 64 bits
  int64_t block_;
  std::vector<int64_t> work_;
  std::vector<std::unique_ptr<float[]>> memory_;
};

constexpr int64_t kSlotValues = 1 << 20;  // dot products of a head that are kept

// The memory of a head of `count` rows, packed, for picks among them.
class HeadWorkspace {
 public:
  HeadWorkspace(int64_t columns, int64_t count)
      : packed_(columns, round_up(count, kMaxPanel), 1),
        slots_(std::max(kMaxTileRows, std::min(count, kSlotValues / round_up(count, kMaxPanel)))),
        floats_(new float[(slots_ + 1) * round_up(count, kMaxPanel)]),
        integers_(count + slots_) {}

  HeadMemory memory() { return {packed_.scratches[0], floats_.get(), integers_.data(), slots_}; }

 private:
  Workspace packed_;
  int64_t slots_;
  std::unique_ptr<float[]> floats_;
  std::vector<int32_t> integers_;
};

}  // namespace farthest_first
}  // namespace dynal
