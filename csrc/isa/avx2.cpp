// The kernels for x86-64 with AVX2, FMA and F16C.
#define DYNAL_ISA avx2
#define DYNAL_VECTOR_BYTES 32
#include "kernels.inl"
