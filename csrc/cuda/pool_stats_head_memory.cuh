// The shared memory of the blocks of a cluster: its layout, and the copies that fill it.
#pragma once

#include "pool_stats_rows.cuh"

namespace dynal {
namespace pool_stats {
namespace hopper {

constexpr int kMaxBlocks = 8;         // of a cluster, on any Hopper
constexpr int kRows = 64;             // of a tile
constexpr int kClasses = 8 * kPairs;  // of a block
constexpr int kGroups = 3;            // warp groups that compute
constexpr int kGroupThreads = 128;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;  // the last group issues copies
constexpr int kRegisters = 160, kFewRegisters = 32;      // of their threads
constexpr int kFeatureDepth = 32;  // columns of a piece of features: a row of 64 bytes, swizzled
constexpr int kWeightDepth = 64;   // and of weights: 128 bytes
constexpr int kFeatureBytes = kRows * kFeatureDepth * 2;
constexpr int kWeightBytes = kClasses * kWeightDepth * 2;
constexpr int kMinStages = 4, kMaxStages = 16;  // pieces of features in shared memory
constexpr int kMaxWeightPieces = 12;
constexpr int kWeightsAhead = 6;  // pieces of weights copied ahead of the features they multiply
constexpr int kSharedLimit = 232448;

constexpr int kClaimed = 1 << 30;  // a bit in the label of block 0: the row counts
// The logit of a column beyond the classes: it is finite, and its exponential is 0. A row whose
// logits are all below it counts as not finite.
constexpr float kNoClass = -1e38f;

// The softmax of a row over the classes of one block.
struct alignas(16) Known {
  float top, total, second;  // maximum; sum of exp(logit - top), -1 if not finite; second highest
  int32_t label;             // first class of the maximum, and kClaimed
};

// What the warps of a block share, and other blocks read. Barriers are indexed by stage, piece or
// group.
struct Shared {
  Known known[kGroups][kRows];
  float4 sums[kGroups][kRows + kMaxBlocks];  // Sums of the rows that this block finishes
  uint64_t weights_full[kMaxWeightPieces];
  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t turn[kGroups];  // the group before has received all pieces of its tile
  uint64_t known_by_all[kGroups], summed[kGroups], read_by_all[kGroups];
};

// The number of stages that fit beside the weights.
constexpr int stages_for(int64_t width) {
  const int64_t weights = (width + kWeightDepth - 1) / kWeightDepth;
  if (weights > kMaxWeightPieces) return 0;
  const int64_t room = kSharedLimit - weights * kWeightBytes - sizeof(Shared);
  return room / kFeatureBytes < kMaxStages ? room / kFeatureBytes : kMaxStages;
}

constexpr bool fits(int64_t classes, int64_t width) {
  return classes <= kMaxBlocks * kClasses && stages_for(width) >= kMinStages;
}

constexpr int blocks_for(int64_t classes) { return (classes + kClasses - 1) / kClasses; }

constexpr int64_t shared_bytes(int64_t width, int stages) {
  return (width + kWeightDepth - 1) / kWeightDepth * kWeightBytes + stages * kFeatureBytes +
         sizeof(Shared);
}

static_assert(stages_for(768) == 7, "with fewer stages copies arrive too late");

struct Parameters {
  State state;
  Ids ids;
  const uint16_t* bias;  // or null
  int blocks;            // of a cluster
  int pieces;            // of features, in a row: two for each piece of weights
  int stages;

  Parameters(const State& state, const Batch& batch, int stages)
      : state(state),
        ids{batch.ids, batch.id_bytes, batch.rows},
        bias(static_cast<const uint16_t*>(batch.head.bias)),
        blocks(blocks_for(state.classes)),
        pieces((batch.head.width + kWeightDepth - 1) / kWeightDepth * 2),
        stages(stages) {}
};

// Describes a tile in shared memory to the products: swizzled rows of 128 or 64 bytes, with
// `stride` bytes from one group of eight rows to the next. Adding 1 to a descriptor moves it by 16
// bytes.
enum Swizzle : uint64_t { swizzle_128 = 1, swizzle_64 = 2 };

DYNAL_DEVICE uint64_t tile_descriptor(const char* shared, int stride, Swizzle swizzle) {
  return (static_cast<uint64_t>(swizzle) << 62) | (static_cast<uint64_t>(stride / 16) << 32) |
         (1ull << 16) | ((address(shared) & 0x3ffff) / 16);
}

// The memory of a block.
struct Memory {
  char* weights;
  char* features;
  Shared* shared;

  DYNAL_DEVICE explicit Memory(const Parameters& p)
      : weights(shared_memory()),
        features(weights + p.pieces / 2 * kWeightBytes),
        shared(reinterpret_cast<Shared*>(features + p.stages * kFeatureBytes)) {}
};

// A position in a ring.
struct Cycle {
  int at, length;

  DYNAL_DEVICE Cycle(int begin, int length) : at(begin % length), length(length) {}
  // Returns whether it is back at 0.
  DYNAL_DEVICE bool advance() {
    at = at + 1 == length ? 0 : at + 1;
    return at == 0;
  }
};

DYNAL_DEVICE void init_barriers(const Parameters& p, Shared& shared, int tiles) {
  for (uint64_t& barrier : shared.weights_full) init_barrier(&barrier, 1);
  for (int i = 0; i < p.stages; ++i) {
    init_barrier(shared.full + i, 1);
    init_barrier(shared.empty + i, 4 * p.blocks);  // the warps of a group in each
  }
  for (int i = 0; i < kGroups; ++i) {
    init_barrier(shared.turn + i, 4);
    init_barrier(shared.known_by_all + i, p.blocks);
    init_barrier(shared.summed + i, 1);
    init_barrier(shared.read_by_all + i, p.blocks);
  }
  fence_barrier_init();
  for (int i = 0; i < p.stages && i < tiles * p.pieces; ++i) {
    arrive_expecting(shared.full + i, kFeatureBytes);
  }
}

// One thread of each block issues the copies of its weights, and of the features of some stages.
DYNAL_DEVICE void issue_copies(const Parameters& p, const Memory& memory, const TensorMap& features,
                               const TensorMap& weights, int tiles) {
  const int rank = block_rank();
  const auto copy_weights = [&](int piece) {
    uint64_t* full = memory.shared->weights_full + piece;
    arrive_expecting(full, kWeightBytes);
    copy_box(memory.weights + piece * kWeightBytes, weights, piece * kWeightDepth, rank * kClasses,
             full);
  };
  const int rows_apart = clusters(p.blocks) * kRows;  // from a tile to the next
  int issued = 0, use = 0;
  Cycle stage(0, p.stages);
  for (int t = 0; t < tiles; ++t) {
    const int row = cluster_index(p.blocks) * kRows + t * rows_apart;
    for (int piece = 0; piece < p.pieces; ++piece) {
      if (issued < p.pieces / 2 && issued < piece / 2 + kWeightsAhead) copy_weights(issued++);
      if (stage.at % p.blocks == rank) {
        if (use > 0) wait(memory.shared->empty + stage.at, (use - 1) & 1);
        copy_box(memory.features + stage.at * kFeatureBytes, features, piece * kFeatureDepth, row,
                 memory.shared->full + stage.at, (1 << p.blocks) - 1);
        if (t + 1 < tiles) prefetch_box(features, piece * kFeatureDepth, row + rows_apart);
      }
      if (stage.advance()) ++use;
    }
  }
}

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal
