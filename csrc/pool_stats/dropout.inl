// Dropout of the features of a sample: the masks of `kept_features` in dropout.py, bit for bit.
#pragma once

#include "../common/vector.inl"
#include "pool_stats.h"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

using namespace dynal::DYNAL_ISA;

typedef uint64_t vl __attribute__((vector_size(DYNAL_VECTOR_BYTES)));

constexpr uint64_t kGoldenStep = 0x9e3779b97f4a7c15;

// The finaliser of SplitMix64, of one number or of a vector of them.
template <class Bits>
inline Bits mixed(Bits z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

// Drops some of a sample's features (width), in place, and scales the others. Each 64 bits serve
// two features, the low half the first.
inline void drop(const Dropout& dropout, int64_t sample, int64_t width, float* features) {
  const uint64_t number = dropout.first_sample + (uint64_t)sample;
  const uint64_t row = mixed(dropout.key + (number + 1) * kGoldenStep);
  vl word;
  for (int i = 0; i < kDoubles; ++i) word[i] = row + (uint64_t)(i + 1) * kGoldenStep;
  const vu below = dropout.below - vu{};
  const vf kept_scale = splat(dropout.scale);
  for (int64_t k = 0; k < width; k += kLanes) {
    const vi dropped = (vi)((vu)mixed(word) < below);
    const vf scale = select(dropped, vf{}, kept_scale);  // a factor: 0 times NaN is NaN
    word += kDoubles * kGoldenStep;
    if (width - k >= kLanes) {
      store(features + k, load(features + k) * scale);
    } else {
      store_n(features + k, load_n(features + k, width - k) * scale, width - k);
    }
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal
