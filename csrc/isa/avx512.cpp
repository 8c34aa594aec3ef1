// The kernels for x86-64 with AVX-512 F, BW, DQ and VL.
#define DYNAL_ISA avx512
#define DYNAL_VECTOR_BYTES 64
#include "kernels.inl"
