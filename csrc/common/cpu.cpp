#include "cpu.h"

#include <atomic>
#include <stdexcept>

namespace dynal {
namespace {

std::atomic<int>& active() {
  static std::atomic<int> isa{static_cast<int>(supported_isas().back())};
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas{Isa::baseline};
#ifdef DYNAL_X86_64
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      isas.push_back(Isa::avx512);
    }
  }
#endif
  return isas;
}

Isa active_isa() { return static_cast<Isa>(active().load(std::memory_order_relaxed)); }

void set_isa(const std::string& name) {
  std::string known;
  for (Isa isa : supported_isas()) {
    if (name == isa_name(isa)) {
      active().store(static_cast<int>(isa), std::memory_order_relaxed);
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw std::invalid_argument("instruction set '" + name + "' is not one this CPU runs: " + known);
}

}  // namespace dynal
