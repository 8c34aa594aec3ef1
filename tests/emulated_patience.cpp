// A barrier at which too few arrive, waited for by the model of Hopper: the guard against hangs.
#include <cstdio>
#include <cstring>

#include "hopper_emulation.h"

using namespace dynal::hopper;

// Runs a warp of which `lanes` arrive at a barrier for all of them; returns how it ended.
const char* run(int lanes, unsigned seed) {
  static char said[100];
  int gone_on = 0;
  try {
    Cluster(0, 1, 1, kWarp, seed).run([&] {
      uint64_t* barrier = reinterpret_cast<uint64_t*>(shared_memory());
      if (thread_index() == 0) init_barrier(barrier, kWarp);
      cluster_sync();
      if (thread_index() < lanes) arrive(barrier);
      wait(barrier, 0);
      ++gone_on;
    });
  } catch (const std::runtime_error& error) {
    std::strcpy(said, error.what());
    return said;
  }
  std::snprintf(said, sizeof(said), "%d went on", gone_on);
  return said;
}

int main() {
  for (unsigned seed = 1; seed <= 3; ++seed) std::printf("%s\n", run(kWarp, seed));
  for (unsigned seed = 1; seed <= 3; ++seed) std::printf("%s\n", run(kWarp - 1, seed));
}
