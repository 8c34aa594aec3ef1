#include "dense_discrepancy.h"

#include <vector>

#include "../common/team.h"
#include "../isa/kernels.h"

namespace dynal {
namespace dense_discrepancy {

double mean_squared_distance(const Maps& maps, int threads) {
  const Kernels& run = kernels().dense_discrepancy;
  const int64_t room = run.block_pixels(maps.classes), blocks = (maps.pixels + room - 1) / room;
  if (blocks < 2 * threads) threads = 1;
  const int64_t floats = 2 * (maps.classes + 1) * room;
  const auto scratch = aligned_floats(floats * threads);
  std::vector<double> sums(blocks);
  in_flushed_parts(threads, [&](int part, int parts) {
    run.sum_blocks(maps, blocks * part / parts, blocks * (part + 1) / parts,
                   scratch.get() + floats * part, sums.data());
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / static_cast<double>(maps.pixels);
}

}  // namespace dense_discrepancy
}  // namespace dynal
