#include "dense_discrepancy.h"

#include <vector>

#include "../common/cpu.h"
#include "../common/worker.h"

namespace dynal {

#define DYNAL_DECLARE(ISA)                                                                      \
  namespace ISA {                                                                               \
  int64_t dense_block(int64_t classes);                                                         \
  void dense_blocks(const dense_discrepancy::Maps&, int64_t begin, int64_t end, float* scratch, \
                    double* sums);                                                              \
  }
DYNAL_DECLARE(baseline)
#ifdef DYNAL_X86_64
DYNAL_DECLARE(avx2)
DYNAL_DECLARE(avx512)
#endif

namespace dense_discrepancy {
namespace {

struct Kernels {
  decltype(&baseline::dense_block) block;
  decltype(&baseline::dense_blocks) blocks;
};

Kernels kernels() {
#ifdef DYNAL_X86_64
  if (active_isa() == Isa::avx512) return {avx512::dense_block, avx512::dense_blocks};
  if (active_isa() == Isa::avx2) return {avx2::dense_block, avx2::dense_blocks};
#endif
  return {baseline::dense_block, baseline::dense_blocks};
}

}  // namespace

double mean_squared_distance(const Maps& maps, int threads) {
  const Kernels run = kernels();
  const int64_t room = run.block(maps.classes), blocks = (maps.pixels + room - 1) / room;
  if (blocks < 2 * threads) threads = 1;
  const int64_t floats = 2 * (maps.classes + 1) * room;
  const auto scratch = aligned_floats(floats * threads);
  std::vector<double> sums(blocks);
  with_team(threads, [&](int thread, int team) {
    run.blocks(maps, blocks * thread / team, blocks * (thread + 1) / team,
               scratch.get() + floats * thread, sums.data());
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / static_cast<double>(maps.pixels);
}

}  // namespace dense_discrepancy
}  // namespace dynal
