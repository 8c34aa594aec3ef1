#include "kernels.h"

#include "../common/cpu.h"

namespace dynal {

namespace baseline {
extern const Kernels kernels;
}
#ifdef DYNAL_X86_64
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

const Kernels& kernels() {
  switch (active_isa()) {
#ifdef DYNAL_X86_64
    case Isa::avx512:
      return avx512::kernels;
    case Isa::avx2:
      return avx2::kernels;
#endif
    default:
      return baseline::kernels;
  }
}

}  // namespace dynal
