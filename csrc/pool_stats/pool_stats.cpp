#include "pool_stats.h"

#include <algorithm>
#include <memory>

#include "../common/team.h"
#include "../isa/kernels.h"

namespace dynal {

namespace pool_stats {
namespace {

// Of fewer rows one thread claims the samples: to wake the others would take longer.
constexpr int64_t kClaimedTogether = 8192;

bool is_known(const State& state, int64_t id) {
  return static_cast<uint64_t>(id) < static_cast<uint64_t>(state.num_samples);
}

// The part that writes a sample's stamp. The stamps of one cache line have the same owner;
// unknown ids belong to part 0.
uint64_t owner(const State& state, int64_t id, uint64_t parts) {
  if (!is_known(state, id)) return 0;
  const uint32_t hash = static_cast<uint32_t>(id >> 4) * 2654435769u;
  return hash * parts >> 32;
}

// The first row with a sample's id claims the sample; the status of other rows says what is wrong.
// Without a branch on the stamp: it comes from anywhere in memory, and others need not wait for it.
void claim(const State& state, int64_t id, uint8_t* status) {
  if (!is_known(state, id)) {
    *status = unknown;
    return;
  }
  const int32_t pass = *state.pass_stamp, stamp = state.stamp[id];
  const bool dropped = stamp == kDropped, first = stamp < pass;
  state.stamp[id] = first ? pass : dropped ? stamp : stamp | kDuplicate;
  *status = first ? claimed : dropped ? unknown : duplicate;
}

template <class Id>
bool strictly_increasing(const Id* ids, int64_t rows) {
  for (int64_t row = 1; row < rows; ++row) {
    if (ids[row - 1] >= ids[row]) return false;
  }
  return true;
}

// Claims the samples of the batch; before, the status of every row is `claimed`. `mine` has room
// for all rows. The result does not depend on the number of parts: either no sample comes twice,
// or a sample's owner visits all of its rows, in their order.
template <class Id>
void claim(const State& state, const Id* ids, int64_t rows, uint8_t* status, int64_t* mine,
           int64_t part, int64_t parts) {
  if (parts == 1 || strictly_increasing(ids, rows)) {
    const int64_t end = rows * (part + 1) / parts;
    for (int64_t row = rows * part / parts; row < end; ++row) {
      claim(state, ids[row], status + row);
    }
    return;
  }
  int64_t owned = 0;  // collected without a branch, which would be mispredicted
  for (int64_t row = 0; row < rows; ++row) {
    mine[owned] = row;
    owned += owner(state, ids[row], parts) == static_cast<uint64_t>(part);
  }
  for (int64_t i = 0; i < owned; ++i) claim(state, ids[mine[i]], status + mine[i]);
}

int64_t id_at(const Batch& batch, int64_t row) {
  return batch.id_bytes == 4 ? static_cast<const int32_t*>(batch.ids)[row]
                             : static_cast<const int64_t*>(batch.ids)[row];
}

void record_unknown(const State& state, const Batch& batch, const uint8_t* status) {
  for (int64_t row = 0; row < batch.rows; ++row) {
    if (status[row] != unknown) continue;
    const int64_t n = ++state.unknown_ids[0];
    if (n > kMaxUnknownIds) continue;
    state.unknown_ids[n] = id_at(batch, row);
  }
}

}  // namespace

void update(const State& state, const Batch& batch, int threads) {
  const Kernels& run = kernels().pool_stats;
  if (batch.rows < 2 * threads) threads = 1;
  const Head &head = batch.head, &teacher = batch.teacher_head;
  const int claiming = !head.features && batch.rows < kClaimedTogether ? 1 : threads;
  const std::unique_ptr<uint8_t[]> status(new uint8_t[batch.rows]());
  const std::unique_ptr<int64_t[]> owned(new int64_t[claiming == 1 ? 0 : batch.rows * claiming]);
  const int64_t width = std::max(head.width, teacher.width);
  int64_t floats = head.features ? run.head_scratch_floats(state.classes, width)
                                 : run.scratch_floats(state.classes);
  floats = (floats + 15) / 16 * 16;
  const auto scratch = aligned_floats(floats * threads);
  const auto packed =
      aligned_floats(head.features ? run.packed_floats(state.classes, head.width) : 0);
  const auto teacher_packed =
      aligned_floats(teacher.features ? run.packed_floats(state.classes, teacher.width) : 0);
  in_flushed_parts(claiming, [&](int part, int parts) {
    float* const mine = scratch.get() + floats * part;
    int64_t* const rows = owned.get() + (parts == 1 ? 0 : batch.rows * part);
    if (batch.id_bytes == 4) {
      claim(state, static_cast<const int32_t*>(batch.ids), batch.rows, status.get(), rows, part,
            parts);
    } else {
      claim(state, static_cast<const int64_t*>(batch.ids), batch.rows, status.get(), rows, part,
            parts);
    }
    if (head.features) {
      run.pack_weights(head, batch.dtype, state.classes, part, parts, packed.get(), mine);
    }
    if (teacher.features) {
      run.pack_weights(teacher, batch.dtype, state.classes, part, parts, teacher_packed.get(),
                       mine);
    }
  });
  in_flushed_parts(threads, [&](int part, int parts) {
    float* const mine = scratch.get() + floats * part;
    const int64_t begin = batch.rows * part / parts, end = batch.rows * (part + 1) / parts;
    if (head.features) {
      run.update_head_rows(state, batch, status.get(), begin, end, packed.get(),
                           teacher.features ? teacher_packed.get() : nullptr, mine);
    } else {
      run.update_rows(state, batch, status.get(), begin, end, mine);
    }
  });
  record_unknown(state, batch, status.get());
}

}  // namespace pool_stats
}  // namespace dynal
