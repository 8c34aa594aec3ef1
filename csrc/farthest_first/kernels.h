// The kernels of farthest-first, as every instruction set has them. Each does what the function of
// the same name in farthest_first.h does, with working memory.
#pragma once

#include "farthest_first.h"

namespace dynal {
namespace farthest_first {

constexpr int64_t kMaxTileRows = 16;  // rows of the largest register tile
constexpr int64_t kMaxPanel = 32;     // centers of the largest register tile

// Multiplications of a call in integers, at least: for fewer, the tighter bounds of float32 pay.
constexpr int64_t kShortWork = int64_t{1} << 23;

// Working memory of one thread.
struct Scratch {
  float* centers;    // (columns, center_block) in panels, or pairs of integers
  float* rows;       // (kMaxTileRows, columns), or pairs of integers
  float* dots;       // (kMaxTileRows, center_block)
  float* low;        // (center_block,): the centers' terms of lower bounds
  float* high;       // (center_block,): and of upper bounds
  float* units;      // (center_block,): what the integers of each center stand for (shorts.inl)
  float* row_units;  // (kMaxTileRows,): and those of each row
  void* x;           // (columns,) of up to 8 bytes
  void* y;           // (columns,) of up to 8 bytes
  int64_t* work;     // the cost so far, in multiplications of the filter
};

// How a call works: with a Scratch per thread, blocks of center_block packed centers, and a share.
struct Work {
  const Scratch* scratches;  // (threads,)
  int64_t center_block;
  Share share;
  int threads;
};

// Working memory of a traversal: the packed head, and dot products of some of its rows with it.
struct HeadMemory {
  const Scratch& packed;
  float* floats;       // (slot_count + 1, count rounded up to kMaxPanel)
  int32_t* integers;   // (count + slot_count,)
  int64_t slot_count;  // rows whose dot products are kept
};

// Clusters of centers: their centroids, packed as one group, and how many there are.
struct Centroids {
  const Panels& panels;
  int64_t count;
};

struct Kernels {
  bool has_shorts;  // whether the filter multiplies integers
  void (*measure)(const Space& space, const Points& points, int64_t begin, int64_t end,
                  Measure* measures, const Scratch* scratches, int threads);
  int64_t (*distances)(const Pairs& pairs, float* lower, float* upper, const Work& work);
  int64_t (*bound)(const Pairs& pairs, float* bound, const Work& work);
  int64_t (*refresh)(const Pairs& pairs, const int32_t* first, const float* bound, float* exact,
                     const Work& work);
  int64_t (*assign)(const Pairs& pairs, const int32_t* ranks, const float* bound, int64_t* keys,
                    const Work& work);
  void (*pack)(const Space& space, const Points& y, const int32_t* centers, int64_t count,
               const Panels& panels, int64_t at, const Scratch& scratch);
  void (*pack_rows)(const Space& space, const Points& x, const int32_t* rows, int64_t count,
                    const PackedRows& packed, const Work& work);
  void (*nearest)(const Space& space, const Points& x, const int32_t* rows, int64_t count,
                  const Centroids& centroids, int64_t probes, const PackedRows& packed,
                  int32_t* nearest, const Work& work);
  Picked (*traverse)(const Space& space, const Points& x, const Head& head, float* exact,
                     const Picks& picks, const HeadMemory& memory, const Work& work);
};

}  // namespace farthest_first
}  // namespace dynal
