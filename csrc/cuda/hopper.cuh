// The instructions of Hopper that the kernels use, one per function: barriers, tensor copies,
// products.
//
// tests/hopper_emulation.h has the same functions in plain C++.
#pragma once

#include <cuda.h>
#include <cuda_fp16.h>

#include <cstdint>

#define DYNAL_DEVICE __device__ __forceinline__

namespace dynal {
namespace hopper {

DYNAL_DEVICE int64_t clock_cycles() { return clock64(); }
DYNAL_DEVICE void give_up() { __trap(); }

}  // namespace hopper
}  // namespace dynal

#include "patience.cuh"

namespace dynal {
namespace hopper {

using TensorMap = CUtensorMap;

struct F16 {};
struct Bf16 {};

DYNAL_DEVICE uint32_t address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// The index of this thread in its block, of this block in its cluster, of the cluster in the grid.
DYNAL_DEVICE int thread_index() { return threadIdx.x; }
// The shuffle tells the compiler that all lanes have the same value.
DYNAL_DEVICE int warp_index() { return __shfl_sync(0xffffffff, threadIdx.x / 32, 0); }
DYNAL_DEVICE int cluster_index(int blocks) { return blockIdx.x / blocks; }
DYNAL_DEVICE int clusters(int blocks) { return gridDim.x / blocks; }
DYNAL_DEVICE int block_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

DYNAL_DEVICE char* shared_memory() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}

// Barriers in shared memory.

DYNAL_DEVICE void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(barrier)), "r"(arrivals));
}

// Makes initialized barriers visible to the copy engine, and after a cluster_sync to the cluster.
DYNAL_DEVICE void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DYNAL_DEVICE void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(barrier)) : "memory");
}

// Arrives, and makes the phase wait for that many bytes of copies, too.
DYNAL_DEVICE void arrive_expecting(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(barrier)),
               "r"(bytes)
               : "memory");
}

// The address of the same place in the shared memory of another block of the cluster.
DYNAL_DEVICE uint32_t remote_address(const void* shared, int rank) {
  uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address(shared)), "r"(rank));
  return remote;
}

// Arrives at the barrier at the same place in another block.
DYNAL_DEVICE void arrive_at(uint64_t* barrier, int rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(remote_address(barrier, rank))
               : "memory");
}

// The same with release semantics: who waits there sees what this thread has seen written.
DYNAL_DEVICE void publish_at(uint64_t* barrier, int rank) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                   remote_address(barrier, rank))
               : "memory");
}

#define DYNAL_TRY_WAIT(SCOPE)                   \
  asm volatile(                                 \
      "{\n.reg .pred ended;\n"                  \
      "mbarrier.try_wait.parity.acquire." SCOPE \
      ".shared::cta.b64 ended, [%1], %2;\n"     \
      "selp.u32 %0, 1, 0, ended;\n}"            \
      : "=r"(ended)                             \
      : "r"(address(barrier)), "r"(parity)      \
      : "memory")

// Waits until the phase of this parity has ended.
DYNAL_DEVICE void wait(uint64_t* barrier, int parity) {
  wait_patiently([&] {
    uint32_t ended;
    DYNAL_TRY_WAIT("cta");
    return ended != 0;
  });
}

// The same with acquire semantics in the cluster: sees what other blocks wrote before publish_at.
DYNAL_DEVICE void wait_for_cluster(uint64_t* barrier, int parity) {
  wait_patiently([&] {
    uint32_t ended;
    DYNAL_TRY_WAIT("cluster");
    return ended != 0;
  });
}

#undef DYNAL_TRY_WAIT

// Synchronizes `threads` threads. Barrier 0 is that of __syncthreads.
DYNAL_DEVICE void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

DYNAL_DEVICE void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Copies a box of a tensor to the same place in every block of `mask`, and counts the bytes at the
// barrier at the same place in each. Elements outside of the tensor are 0.
DYNAL_DEVICE void copy_box(void* to, const TensorMap& map, int column, int row, uint64_t* barrier,
                           int mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(address(to)),
      "l"(&map), "r"(column), "r"(row), "r"(address(barrier)), "h"(static_cast<uint16_t>(mask))
      : "memory");
}

// The same to this block alone.
DYNAL_DEVICE void copy_box(void* to, const TensorMap& map, int column, int row, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(address(to)),
      "l"(&map), "r"(column), "r"(row), "r"(address(barrier))
      : "memory");
}

// Prefetches a box to L2.
DYNAL_DEVICE void prefetch_box(const TensorMap& map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(&map),
               "r"(column), "r"(row)
               : "memory");
}

// Products of a warp group: x (64, 128) += a (64, 16) b (128, 16)^T. They run asynchronously. The
// empty asm statements keep the compiler from moving accesses to x past begin and wait.

DYNAL_DEVICE void begin_products(float (&x)[64]) {
#pragma unroll
  for (int j = 0; j < 64; ++j) asm volatile("" : "+f"(x[j])::"memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

DYNAL_DEVICE void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kPending committed groups of products are still running.
template <int kPending>
DYNAL_DEVICE void wait_products(float (&x)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#pragma unroll
  for (int j = 0; j < 64; ++j) asm volatile("" : "+f"(x[j])::"memory");
}

#define DYNAL_WGMMA(TYPE)                                                                         \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                       \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "    \
               "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, " \
               "%33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
               "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "     \
               "%64, %65, 1, 1, 1, 0, 0;"                                                         \
               : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]),          \
                 "+f"(x[6]), "+f"(x[7]), "+f"(x[8]), "+f"(x[9]), "+f"(x[10]), "+f"(x[11]),        \
                 "+f"(x[12]), "+f"(x[13]), "+f"(x[14]), "+f"(x[15]), "+f"(x[16]), "+f"(x[17]),    \
                 "+f"(x[18]), "+f"(x[19]), "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]),    \
                 "+f"(x[24]), "+f"(x[25]), "+f"(x[26]), "+f"(x[27]), "+f"(x[28]), "+f"(x[29]),    \
                 "+f"(x[30]), "+f"(x[31]), "+f"(x[32]), "+f"(x[33]), "+f"(x[34]), "+f"(x[35]),    \
                 "+f"(x[36]), "+f"(x[37]), "+f"(x[38]), "+f"(x[39]), "+f"(x[40]), "+f"(x[41]),    \
                 "+f"(x[42]), "+f"(x[43]), "+f"(x[44]), "+f"(x[45]), "+f"(x[46]), "+f"(x[47]),    \
                 "+f"(x[48]), "+f"(x[49]), "+f"(x[50]), "+f"(x[51]), "+f"(x[52]), "+f"(x[53]),    \
                 "+f"(x[54]), "+f"(x[55]), "+f"(x[56]), "+f"(x[57]), "+f"(x[58]), "+f"(x[59]),    \
                 "+f"(x[60]), "+f"(x[61]), "+f"(x[62]), "+f"(x[63])                               \
               : "l"(a), "l"(b))

DYNAL_DEVICE void multiply(F16, float (&x)[64], uint64_t a, uint64_t b) { DYNAL_WGMMA("f16"); }
DYNAL_DEVICE void multiply(Bf16, float (&x)[64], uint64_t a, uint64_t b) { DYNAL_WGMMA("bf16"); }

#undef DYNAL_WGMMA

// A warp group takes registers that another has released.
template <int kRegisters>
DYNAL_DEVICE void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
DYNAL_DEVICE void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Exchange between the lanes of a warp, and with other blocks.

template <class T>
DYNAL_DEVICE T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(0xffffffff, value, lanes);
}

DYNAL_DEVICE float4 load_remote(const float4* shared, int rank) {
  float4 value;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(remote_address(shared, rank))
               : "memory");
  return value;
}

// Stores to the same place in another block, and counts the bytes at the barrier there.
DYNAL_DEVICE void store_remote(float4* shared, int rank, float4 value, uint64_t* barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(remote_address(shared, rank)),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(remote_address(barrier, rank))
      : "memory");
}

DYNAL_DEVICE void prefetch_to_l2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

DYNAL_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

DYNAL_DEVICE float bits_to_float(int bits) { return __int_as_float(bits); }
DYNAL_DEVICE int float_to_bits(float value) { return __float_as_int(value); }
DYNAL_DEVICE float half_to_float(uint16_t half) { return __half2float(__ushort_as_half(half)); }
DYNAL_DEVICE uint16_t float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }

DYNAL_DEVICE int32_t atomic_max(int32_t* to, int32_t value) { return atomicMax(to, value); }
DYNAL_DEVICE void atomic_or(int32_t* to, int32_t value) { atomicOr(to, value); }
DYNAL_DEVICE int64_t atomic_increment(int64_t* to) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(to), 1ull);
}

}  // namespace hopper
}  // namespace dynal
