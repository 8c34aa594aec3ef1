// The update of the pool statistics from features, by clusters of blocks that hold the weights.
//
// Block r of a cluster keeps the weights of its 128 classes in shared memory. Features arrive in
// tiles of 64 rows, in pieces that one block copies to all blocks of the cluster. The three warp
// groups of a block take turns with the tiles: while one multiplies, the others fold the logits in
// their registers into the state. A row's softmax needs all blocks: each writes the maximum and the
// sum of its classes to its shared memory, where the others read them. So logits never reach global
// memory, a block reads its weights once, and a cluster reads the features once.
#pragma once

#include "pool_stats_head_memory.cuh"

namespace dynal {
namespace pool_stats {
namespace hopper {

template <class Element>
DYNAL_DEVICE float element_to_float(uint16_t bits);
template <>
DYNAL_DEVICE float element_to_float<F16>(uint16_t bits) {
  return half_to_float(bits);
}
template <>
DYNAL_DEVICE float element_to_float<Bf16>(uint16_t bits) {
  return bits_to_float(static_cast<int>(bits) << 16);
}

// One of the warp groups that compute.
template <class Element>
struct Group {
  const Parameters& p;
  const Memory& memory;
  Shared& shared;
  const int rank, group, thread, warp, lane;
  const int tiles;   // of this cluster
  const int copier;  // the block that copies to the stage with the number of the lane

  DYNAL_DEVICE Group(const Parameters& p, const Memory& memory, int tiles, int warp)
      : p(p),
        memory(memory),
        shared(*memory.shared),
        rank(block_rank()),
        group(warp / 4),
        thread(thread_index() % kGroupThreads),
        warp(warp % 4),
        lane(thread_index() % 32),
        tiles(tiles),
        copier(lane % p.blocks) {}

  DYNAL_DEVICE void run() const {
    const int stride = clusters(p.blocks), first = cluster_index(p.blocks);
    int round = 0;
    for (int t = group; t < tiles; t += kGroups, ++round) {
      update_tile(t, static_cast<int64_t>(first + t * stride) * kRows, round);
    }
  }

  DYNAL_DEVICE void sync() const { sync_threads(1 + group, kGroupThreads); }

  // The first of the two rows of this thread's logits. Four neighbouring lanes share them.
  DYNAL_DEVICE int first_local() const { return 16 * warp + lane / 4; }
  // The first of this thread's classes.
  DYNAL_DEVICE int first_column() const { return rank * kClasses + lane % 4 * 2; }

  DYNAL_DEVICE void update_tile(int t, int64_t first_row, int round) const {
    int claimed = 0;  // a bit for each row
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Row row(p.state, p.ids, first_row + first_local() + 8 * i);
      if (rank == 0 && lane % 4 == 0) claimed |= claim(p.state, row) << i;
      if (row.in_range) prefetch_state(row.sample);
    }
    float x[64];
    uint32_t bias[kPairs];
    load_bias(bias);
    multiply_tile(x, t, round);
    add_bias(x, bias);
    float tops[2], weighted[2];
    Known known[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Top best = top_of_row(x, i);
      tops[i] = best.top;
      known[i] = {best.top, exponentials(x, i, best.top, weighted[i]), best.second,
                  best.label | (claimed >> i & 1) * kClaimed};
    }
    if (round > 0) wait(shared.read_by_all + group, (round - 1) & 1);
    if (lane % 4 == 0) {
      shared.known[group][first_local()] = known[0];
      shared.known[group][first_local() + 8] = known[1];
    }
    if (thread == 0) expect_sums();
    sync();
    if (thread < p.blocks) publish_at(shared.known_by_all + group, thread);
    wait_for_cluster(shared.known_by_all + group, round & 1);

#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Sums sums{weighted[i], 0.0f, 0.0f, 0.0f};
      fold_row(x, i, first_row, tops[i], sums);
      sums.m2 = sum_of_lanes(sums.m2);
      sums.increase = sum_of_lanes(sums.increase);
      sums.cycle = sum_of_lanes(sums.cycle);
      if (lane % 4 == 0) send_sums(first_local() + 8 * i, sums);
    }
    wait_for_cluster(shared.summed + group, round & 1);
    finish_rows(first_row);
    sync();
    if (thread < p.blocks) arrive_at(shared.read_by_all + group, thread);
  }

  // Prefetches this block's part of a row of the state to L2; four lanes share the row.
  DYNAL_DEVICE void prefetch_state(int64_t sample) const {
    const State& state = p.state;
    const int left = static_cast<int>(state.classes) - rank * kClasses;
    const int count = left < kClasses ? left : kClasses;
    const auto prefetch = [&](const void* tensor, int bytes) {
      if (!tensor) return;
      const char* part =
          static_cast<const char*>(tensor) + (sample * state.classes + rank * kClasses) * bytes;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int offset = 32 * (4 * i + lane % 4);
        if (offset < count * bytes) prefetch_to_l2(part + offset);
      }
    };
    prefetch(state.mean, 4);
    prefetch(state.class_m2, 4);
    prefetch(state.previous_output, state.output_bytes);
    prefetch(state.output, state.output_bytes);
  }

  // Loads the bias of this thread's classes, two 16-bit numbers at a time.
  DYNAL_DEVICE void load_bias(uint32_t (&bias)[kPairs]) const {
    const int last = static_cast<int>(p.state.classes) - 2;
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const int column = first_column() + 8 * j, inside = column < last ? column : last;
      bias[j] = p.bias ? *reinterpret_cast<const uint32_t*>(p.bias + inside) : 0;
    }
  }

  // x has the logits of rows lane / 4 and lane / 4 + 8 of the warp's 16, in columns
  // 8 j + lane % 4 * 2 and the next.
  DYNAL_DEVICE void add_bias(float (&x)[64], const uint32_t (&bias)[kPairs]) const {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const bool exists = first_column() + 8 * j < p.state.classes;
      const float even = exists ? element_to_float<Element>(bias[j] & 0xffff) : kNoClass;
      const float odd = exists ? element_to_float<Element>(bias[j] >> 16) : kNoClass;
      x[4 * j] += even;
      x[4 * j + 1] += odd;
      x[4 * j + 2] += even;
      x[4 * j + 3] += odd;
    }
  }

  // x = the tile's features times this block's weights.
  DYNAL_DEVICE void multiply_tile(float (&x)[64], int t, int round) const {
#pragma unroll
    for (int j = 0; j < 64; ++j) x[j] = 0.0f;
    const uint64_t features = tile_descriptor(memory.features, 8 * 2 * kFeatureDepth, swizzle_64);
    const uint64_t weights = tile_descriptor(memory.weights, 8 * 2 * kWeightDepth, swizzle_128);
    const int first = t * p.pieces;
    Cycle stage(first, p.stages);
    int parity = first / p.stages & 1, before[2] = {0, 0};
    int wanted = tiles * p.pieces - first - p.stages;  // pieces that no stage holds yet
    // Until the group before has received all of its pieces, a stage may be two phases behind,
    // where the parity is the same.
    if (t > 0) wait(shared.turn + group, (group > 0 ? round : round - 1) & 1);
    for (int step = 0; step < p.pieces / 2; ++step) {
      int stages[2];
      if (round == 0) wait(shared.weights_full + step, 0);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        stages[i] = stage.at;
        wait(shared.full + stage.at, parity);
        if (stage.advance()) parity ^= 1;
      }
      begin_products(x);
      const uint64_t b = weights + step * (kWeightBytes / 16);
#pragma unroll
      for (int k = 0; k < kWeightDepth / 16; ++k) {
        const int a = stages[k / 2] * (kFeatureBytes / 16) + k % 2 * 2;
        multiply(Element(), x, features + a, b + 2 * k);
      }
      commit_products();
      wait_products<1>(x);
      if (step > 0) {
        release(before[0], before[1], wanted);
        wanted -= 2;
      }
      before[0] = stages[0];
      before[1] = stages[1];
    }
    if (lane == 0 && t + 1 < tiles) arrive(shared.turn + (group + 1) % kGroups);
    wait_products<0>(x);
    release(before[0], before[1], wanted);
  }

  // Frees two stages that this warp has read. If more pieces follow, the lane with the number of
  // the stage expects the next one and tells the block that copies it.
  DYNAL_DEVICE void release(int first, int second, int wanted) const {
    if ((lane == first && wanted > 0) || (lane == second && wanted > 1)) {
      if (warp == 0) arrive_expecting(shared.full + lane, kFeatureBytes);
      arrive_at(shared.empty + lane, copier);
    }
  }

  // Value j of row i of this thread's logits: that of column first_column() + j / 2 * 8 + j % 2.
  DYNAL_DEVICE static float& at(float (&x)[64], int i, int j) {
    return x[j / 2 * 4 + 2 * i + j % 2];
  }

  DYNAL_DEVICE Top top_of_row(float (&x)[64], int i) const {
    Top best{-INFINITY, -INFINITY, 0};
#pragma unroll
    for (int j = 0; j < 2 * kPairs; ++j) {
      const float value = at(x, i, j);
      best.second = fmaxf(best.second, fminf(best.top, value));
      best.label = value > best.top ? j / 2 * 8 + j % 2 : best.label;
      best.top = fmaxf(best.top, value);
    }
    best.label += first_column();
    best.merge_lanes(1);
    best.merge_lanes(2);
    return best;
  }

  // Replaces the logits of row i by exponentials; returns their sum, or -1 if a logit is not
  // finite.
  DYNAL_DEVICE float exponentials(float (&x)[64], int i, float top, float& weighted) const {
    float total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 2 * kPairs; ++j) {
      const float below = at(x, i, j) - top;
      const float e = fast_exp2(below * kLog2E);
      at(x, i, j) = e;
      total += e;
      sum += e * below;  // not finite where a logit is not
    }
    weighted = sum_of_lanes(sum);
    total = sum_of_lanes(total);
    return weighted == weighted && top > kNoClass ? total : -1.0f;
  }

  // Folds this thread's share of row i into the state, if the row counts.
  DYNAL_DEVICE void fold_row(float (&x)[64], int i, int64_t first_row, float top,
                             Sums& sums) const {
    const State& state = p.state;
    float scale;
    if (!scale_of_row(first_local() + 8 * i, top, scale)) return;
    const int64_t row = first_row + first_local() + 8 * i;
    const int64_t sample = Row(state, p.ids, row).sample;  // read again: frees a register
    const int left = (static_cast<int>(state.classes) - first_column() + 7) / 8;
    const Slice slice{sample * state.classes + first_column(), left < kPairs ? left : kPairs};
#pragma unroll
    for (int j = 0; j < 2 * kPairs; ++j) at(x, i, j) *= scale;
    const float count = state.count ? state.count[sample] + 1 : 1;
    fold_slice(
        state, slice, 1.0f / count,
        [&](int j) { return Pair{at(x, i, 2 * j), at(x, i, 2 * j + 1)}; }, sums);
  }

  // Returns whether the row counts; `scale` is the factor from this block's exponentials to
  // probabilities.
  DYNAL_DEVICE bool scale_of_row(int local, float top, float& scale) const {
    const auto* known = reinterpret_cast<const float4*>(shared.known[group] + local);
    float tops[2] = {-INFINITY, -INFINITY}, totals[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int block = lane % 4 + 4 * i;
      if (block < p.blocks) {
        const float4 part = load_remote(known, block);
        tops[i] = part.x;
        totals[i] = part.y;
      }
    }
    const float4 of_first = load_remote(known, 0);
    const float row_top = max_of_lanes(fmaxf(tops[0], tops[1]));
    const bool finite = max_of_lanes(fmaxf(-totals[0], -totals[1])) <= 0.0f;
    const float total = sum_of_lanes(totals[0] * fast_exp2((tops[0] - row_top) * kLog2E) +
                                     totals[1] * fast_exp2((tops[1] - row_top) * kLog2E));
    scale = fast_exp2((top - row_top) * kLog2E) / total;
    return finite && (float_to_bits(of_first.w) & kClaimed);
  }

  // Row l of the tile is finished by block r = l % blocks, where it is row l / blocks.

  DYNAL_DEVICE void expect_sums() const {
    const int rows = (kRows - rank + p.blocks - 1) / p.blocks;
    arrive_expecting(shared.summed + group, rows * p.blocks * sizeof(Sums));
  }

  DYNAL_DEVICE void send_sums(int local, const Sums& sums) const {
    const int finisher = local % p.blocks;
    store_remote(shared.sums[group] + local - finisher + rank, finisher,
                 {sums.weighted, sums.m2, sums.increase, sums.cycle}, shared.summed + group);
  }

  // Finishes the rows of this block. Eight lanes share a row, one per block.
  DYNAL_DEVICE void finish_rows(int64_t first_row) const {
    const int block = lane % 8;
    for (int begin = 4 * warp; begin * p.blocks < kRows; begin += kGroupThreads / 8) {
      const int first = (begin + lane / 8) * p.blocks, local = first + rank;
      const bool mine = local < kRows;
      Top best{-INFINITY, -INFINITY, 0x3fffffff};
      Finished row{};
      float top = -INFINITY;
      if (mine && block < p.blocks) {
        const float4 known =
            load_remote(reinterpret_cast<const float4*>(shared.known[group] + local), block);
        const float4 sums = shared.sums[group][first + block];
        best = {known.x, known.z, float_to_bits(known.w)};
        row.total = known.y;
        row.sums = {sums.x, sums.y, sums.z, sums.w};
        top = known.x;
      }
      const bool claimed = best.label & kClaimed;  // in the lane of block 0
      best.label &= ~kClaimed;
      int finite = row.total >= 0.0f;
#pragma unroll
      for (int lanes = 1; lanes < 8; lanes *= 2) {
        best.merge_lanes(lanes);
        finite &= shuffle_xor(finite, lanes);
      }
      const float below = fmaxf(top - best.top, -1000.0f);  // whose exponential is 0
      const float scale = fast_exp2(below * kLog2E);
      row.sums.weighted = (row.sums.weighted + below * row.total) * scale;
      row.total *= scale;
#pragma unroll
      for (int lanes = 1; lanes < 8; lanes *= 2) {
        row.total += shuffle_xor(row.total, lanes);
        row.sums.weighted += shuffle_xor(row.sums.weighted, lanes);
        row.sums.m2 += shuffle_xor(row.sums.m2, lanes);
        row.sums.increase += shuffle_xor(row.sums.increase, lanes);
        row.sums.cycle += shuffle_xor(row.sums.cycle, lanes);
      }
      if (!mine || block != 0 || !claimed) continue;
      const int64_t sample = Row(p.state, p.ids, first_row + local).sample;
      if (finite) {
        row.top = best.top;
        row.second = best.second;
        row.label = best.label;
        row.entropy = logf(row.total) - row.sums.weighted / row.total;
        finish_row(p.state, sample, row);
      } else {
        atomic_or(p.state.stamp + sample, kNonFinite);
      }
    }
  }
};

// What every thread of the grid does.
template <class Element>
DYNAL_DEVICE void update_from_features(const Parameters& p, const TensorMap& features,
                                       const TensorMap& weights) {
  const Memory memory(p);
  const int all_tiles = (p.ids.rows + kRows - 1) / kRows, stride = clusters(p.blocks);
  const int tiles = (all_tiles - cluster_index(p.blocks) + stride - 1) / stride;
  if (thread_index() == 0) init_barriers(p, *memory.shared, tiles);
  cluster_sync();
  const int warp = warp_index();
  if (warp < kGroups * 4) {
    more_registers<kRegisters>();
    Group<Element>(p, memory, tiles, warp).run();
  } else {
    fewer_registers<kFewRegisters>();
    if (thread_index() == kGroups * kGroupThreads) {
      issue_copies(p, memory, features, weights, tiles);
    }
  }
  cluster_sync();  // until here, other blocks read this block's memory
}

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal
