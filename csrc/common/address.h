// Addresses that come from Python as integers.
#pragma once

#include <cstdint>

namespace dynal {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace dynal
