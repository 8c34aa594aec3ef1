// A wait that should be short ends in an error after two seconds, instead of a hang.
//
// The including file defines DYNAL_DEVICE and, in this namespace, clock_cycles() and give_up().
#pragma once

#include <cstdint>

namespace dynal {
namespace hopper {

// Two seconds at 2 GHz. The number of polls says nothing: the hardware may suspend each of them for
// any time.
constexpr int64_t kPatience = 4000000000;

// Calls `ended` until it returns true.
template <class Ended>
DYNAL_DEVICE void wait_patiently(Ended ended) {
  if (ended()) return;
  const int64_t begin = clock_cycles();
  while (!ended()) {
    if (clock_cycles() - begin > kPatience) give_up();
  }
}

}  // namespace hopper
}  // namespace dynal
