// The kernels for any CPU: SSE2 on x86-64, NEON on Arm, by the compiler's default.
#define DYNAL_ISA baseline
#define DYNAL_VECTOR_BYTES 16
#include "kernels.inl"
