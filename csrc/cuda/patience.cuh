// A wait for what should come at once ends in an error after two seconds, not in a hang.
//
// Whoever includes this has DYNAL_DEVICE, clock_cycles() and give_up() in this namespace.
#pragma once

#include <cstdint>

namespace dynal {
namespace hopper {

// At 2 GHz. Polls would be no measure: the hardware may hold each of them back for as long as it
// likes.
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
