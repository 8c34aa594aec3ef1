// A model of what csrc/cuda/hopper.cuh uses of the hardware, to run its kernels on a CPU.
//
// Every thread of a cluster is a fiber; one runs at a time until it waits, and which one goes on is
// drawn at random. Copies land at any time after they were asked for, products read shared memory
// at any time between their start and the wait for them. Not modelled: memory that is seen late.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#define DYNAL_DEVICE inline

namespace dynal {
namespace hopper {

constexpr int kWarp = 32, kBlockMemory = 1 << 18;

// A matrix (rows, columns) of 16-bit elements in boxes of (box_rows, box_columns).
struct TensorMap {
  const uint16_t* matrix;
  int64_t rows, columns;
  int box_rows, box_columns;
};

struct F16 {};
struct Bf16 {};

struct float4 {
  float x, y, z, w;
};

inline float bits_to_float(int bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline int float_to_bits(float value) {
  int bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float half_to_float(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float value = exponent == 31  ? (fraction ? NAN : INFINITY)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -value : value;
}
// Of 0 <= x <= 1, to nearest even: all that a kernel stores in half precision.
inline uint16_t float_to_half(float x) {
  if (x < 0x1p-14f) return std::nearbyint(std::ldexp(x, 24));
  const int exponent = std::ilogb(x);
  return ((exponent + 14) << 10) + static_cast<int>(std::nearbyint(std::ldexp(x, 10 - exponent)));
}
inline float fast_exp2(float x) { return std::exp2(x); }

// Counts those that come together; who came last lets all go on.
struct Meeting {
  int present = 0, number = 0;
};

struct Warp {
  Meeting meeting;
  int64_t values[2][kWarp];  // of this shuffle, and of the one that some lanes still read
};

struct Block {
  std::unique_ptr<char, void (*)(void*)> memory{nullptr, std::free};
  std::vector<Warp> warps;
  Meeting barriers[16];
  int threads = 0;  // that have not ended
};

struct Products {
  std::vector<std::function<void()>> run;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  int block, thread;
  std::function<bool()> ready;
  std::vector<Products> groups;  // committed and not waited for
  Products open;
  bool ended = false, polls = false;
};

class Cluster {
 public:
  Cluster(int index, int clusters, int blocks, int threads, unsigned seed)
      : index(index), clusters(clusters), blocks(blocks), draw(seed) {
    for (Block& block : this->blocks) {
      block.memory.reset(static_cast<char*>(std::aligned_alloc(1024, kBlockMemory)));
      std::memset(block.memory.get(), 0xff, kBlockMemory);
      block.warps.resize(threads / kWarp);
      block.threads = threads;
    }
    fibers.resize(blocks * threads);
    for (size_t i = 0; i < fibers.size(); ++i) {
      fibers[i].block = i / threads;
      fibers[i].thread = i % threads;
    }
  }

  void run(const std::function<void()>& kernel) {
    work = &kernel;
    now = this;
    for (Fiber& fiber : fibers) {
      fiber.stack.resize(1 << 16);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, &Cluster::enter, 0);
    }
    std::vector<Fiber*> left;
    for (Fiber& fiber : fibers) left.push_back(&fiber);
    while (!left.empty()) {
      std::shuffle(left.begin(), left.end(), draw);
      if (draw() % 64 == 0 || (!began && meeting.number > 0)) pause();
      began = meeting.number > 0;  // the first cluster_sync is over
      bool moved = false;
      for (Fiber* fiber : left) {
        if (paused(*fiber) || (fiber->ready && !fiber->ready())) continue;
        fiber->ready = nullptr;
        current = fiber;
        swapcontext(&scheduler, &fiber->context);
        if (error) std::rethrow_exception(error);
        moved = true;
        if (!copies.empty() && draw() % 64 == 0) land();
      }
      if (!moved) {
        if (!copies.empty()) {
          land();
        } else if (paused_to_the_end = false, std::exchange(paused_block, -1) < 0) {
          if (!polling(left)) throw std::runtime_error("every thread waits");
          cycles += 1000000000;  // nothing can come any more: time passes
        }
      }
      left.erase(
          std::remove_if(left.begin(), left.end(), [](Fiber* fiber) { return fiber->ended; }),
          left.end());
    }
    if (!copies.empty()) throw std::runtime_error("a copy was asked for that nobody waited for");
  }

  // The same while the clock stands still: a second later it goes on and looks again.
  void poll_until(const std::function<bool()>& ready) {
    const int64_t now = cycles;
    current->polls = true;
    wait_until([this, ready, now] { return ready() || cycles != now; });
    current->polls = false;
  }

  // The running fiber goes on when `ready` says so, and not before others had their turn.
  void wait_until(std::function<bool()> ready) {
    current->ready = std::move(ready);
    swapcontext(&current->context, &scheduler);
  }

  void meet(Meeting& meeting, int count) {
    const int number = meeting.number;
    if (++meeting.present == count) {
      meeting.present = 0;
      ++meeting.number;
    }
    wait_until([&meeting, number] { return meeting.number != number; });
  }

  // The same place in another block's memory, which is there while a thread of the block is.
  template <class T>
  T* at(T* shared, int rank) {
    if (blocks[rank].threads == 0) throw std::runtime_error("the memory of a block that ended");
    char* own = blocks[current->block].memory.get();
    return reinterpret_cast<T*>(blocks[rank].memory.get() + ((char*)shared - own));
  }

  static inline Cluster* now = nullptr;

  const int index, clusters;
  std::vector<Block> blocks;
  std::vector<Fiber> fibers;
  Fiber* current = nullptr;
  Meeting meeting;
  std::vector<std::function<void()>> copies;
  std::mt19937 draw;
  int64_t cycles = 0;  // moves only when nothing else can

 private:
  static bool polling(const std::vector<Fiber*>& left) {
    return std::any_of(left.begin(), left.end(), [](Fiber* fiber) { return fiber->polls; });
  }
  static void enter() {
    try {
      (*now->work)();
    } catch (...) {
      now->error = std::current_exception();
    }
    now->current->ended = true;
    --now->blocks[now->current->block].threads;
  }

  // Some threads go on later than others: those of some warps of a block, now and then one warp for
  // as long as anything else can go on.
  void pause() {
    if (paused_to_the_end) return;
    paused_to_the_end = draw() % 2;
    if (paused_to_the_end) {
      paused_block = draw() % blocks.size();
      paused_warps = 1u << draw() % blocks[0].warps.size();
      return;
    }
    paused_block = draw() % blocks.size();
    paused_warps = draw() % 4 ? draw() & draw() : ~0u;
  }
  bool paused(const Fiber& fiber) const {
    return fiber.block == paused_block && paused_warps >> fiber.thread / kWarp & 1;
  }

  void land() {
    std::swap(copies[draw() % copies.size()], copies.back());
    const auto copy = std::move(copies.back());
    copies.pop_back();
    copy();
  }

  ucontext_t scheduler;
  const std::function<void()>* work = nullptr;
  std::exception_ptr error;
  int paused_block = -1;
  bool paused_to_the_end = false, began = false;
  uint32_t paused_warps = 0;
};

inline Cluster& cluster() { return *Cluster::now; }
inline int64_t clock_cycles() { return cluster().cycles; }
inline void give_up() { throw std::runtime_error("a wait took more than two seconds"); }

}  // namespace hopper
}  // namespace dynal

#include "../csrc/cuda/patience.cuh"

namespace dynal {
namespace hopper {

inline int thread_index() { return cluster().current->thread; }
inline int warp_index() { return thread_index() / kWarp; }
inline int cluster_index(int) { return cluster().index; }
inline int clusters(int) { return cluster().clusters; }
inline int block_rank() { return cluster().current->block; }
inline char* memory_of(int block) { return cluster().blocks[block].memory.get(); }
inline char* shared_memory() { return memory_of(block_rank()); }
inline uint32_t address(const void* shared) {
  return static_cast<const char*>(shared) - shared_memory();
}

struct Barrier {
  int32_t bytes;
  int16_t pending;
  uint16_t arrivals : 15, phase : 1;

  void settle() {
    if (pending < 0) throw std::runtime_error("more arrivals than a barrier expects");
    if (pending == 0 && bytes == 0) {
      phase ^= 1;
      pending = arrivals;
    }
  }
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& barrier_at(uint64_t* barrier) { return *reinterpret_cast<Barrier*>(barrier); }

inline void init_barrier(uint64_t* barrier, int arrivals) {
  Barrier& b = barrier_at(barrier);
  b.bytes = b.phase = 0;
  b.pending = b.arrivals = arrivals;
}
inline void fence_barrier_init() {}
inline void arrive_expecting(uint64_t* barrier, int bytes) {
  Barrier& b = barrier_at(barrier);
  b.bytes += bytes;
  --b.pending;
  b.settle();
}
inline void arrive(uint64_t* barrier) { arrive_expecting(barrier, 0); }
inline void arrive_at(uint64_t* barrier, int rank) { arrive(cluster().at(barrier, rank)); }
inline void publish_at(uint64_t* barrier, int rank) { arrive_at(barrier, rank); }
inline void wait(uint64_t* barrier, int parity) {
  Barrier& b = barrier_at(barrier);
  wait_patiently([&b, parity] {
    cluster().poll_until([&b, parity] { return b.phase != parity; });
    return b.phase != parity;
  });
}
inline void wait_for_cluster(uint64_t* barrier, int parity) { wait(barrier, parity); }
inline void sync_threads(int barrier, int threads) {
  cluster().meet(cluster().blocks[block_rank()].barriers[barrier], threads);
}
inline void cluster_sync() { cluster().meet(cluster().meeting, cluster().fibers.size()); }

// Where an element of a swizzled tile is, from where it would be without.
inline uint32_t swizzled(uint32_t address, int row_bytes) {
  return address ^ (address >> 7 & (row_bytes / 16 - 1)) << 4;
}

inline void copy_box(void* to, const TensorMap& map, int column, int row, uint64_t* barrier,
                     int mask) {
  const uint32_t at = address(to);
  const int row_bytes = map.box_columns * 2;
  for (int block = 0; mask >> block; ++block) {
    if (!(mask >> block & 1)) continue;
    cluster().copies.push_back(
        [=, &map, full = cluster().at(barrier, block), memory = memory_of(block)] {
          for (int i = 0; i < map.box_rows; ++i) {
            for (int j = 0; j < map.box_columns; ++j) {
              const bool inside = row + i < map.rows && column + j < map.columns;
              const uint16_t value = inside ? map.matrix[(row + i) * map.columns + column + j] : 0;
              std::memcpy(memory + swizzled(at + i * row_bytes + j * 2, row_bytes), &value, 2);
            }
          }
          barrier_at(full).bytes -= map.box_rows * row_bytes;
          barrier_at(full).settle();
        });
  }
}
inline void copy_box(void* to, const TensorMap& map, int column, int row, uint64_t* barrier) {
  copy_box(to, map, column, row, barrier, 1 << block_rank());
}
inline void prefetch_box(const TensorMap&, int, int) {}
inline void prefetch_to_l2(const void* global) { (void)*static_cast<const volatile char*>(global); }

inline float element(F16, uint16_t bits) { return half_to_float(bits); }
inline float element(Bf16, uint16_t bits) { return bits_to_float(bits << 16); }

// Element (row, k) of a tile that a descriptor of the matrix units describes.
template <class Element>
float operand(const char* memory, uint64_t descriptor, int row, int k) {
  const int row_bytes = descriptor >> 62 == 1 ? 128 : descriptor >> 62 == 2 ? 64 : 0;
  if (!row_bytes) throw std::runtime_error("a swizzle that is not modelled");
  const uint32_t start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
  const uint32_t at = start + row / 8 * stride + row % 8 * row_bytes + 2 * k;
  uint16_t bits;
  std::memcpy(&bits, memory + swizzled(at, row_bytes), 2);
  return element(Element(), bits);
}

inline void begin_products(float (&)[64]) {}

template <class Element>
void multiply(Element, float (&x)[64], uint64_t a, uint64_t b) {
  const int thread = thread_index() % 128, lane = thread % 32;
  const char* memory = shared_memory();
  cluster().current->open.run.push_back([=, &x] {
    for (int i = 0; i < 2; ++i) {
      float features[16];
      for (int k = 0; k < 16; ++k) {
        features[k] = operand<Element>(memory, a, thread / 32 * 16 + lane / 4 + 8 * i, k);
      }
      for (int j = 0; j < 32; ++j) {
        const int column = j / 2 * 8 + lane % 4 * 2 + j % 2;
        float& value = x[j / 2 * 4 + 2 * i + j % 2];
        for (int k = 0; k < 16; ++k) {
          value += features[k] * operand<Element>(memory, b, column, k);
        }
      }
    }
  });
}
inline void run_products(Products& products) {
  for (const auto& run : products.run) run();
  products.run.clear();
}
inline void commit_products() {
  Fiber& fiber = *cluster().current;
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open = Products();
  if (cluster().draw() % 2) {
    for (Products& products : fiber.groups) run_products(products);  // in order
  }
}
inline Warp& warp() { return cluster().blocks[block_rank()].warps[warp_index()]; }

// A warp's lanes start and end the wait together.
template <int kPending>
void wait_products(float (&)[64]) {
  Fiber& fiber = *cluster().current;
  cluster().meet(warp().meeting, kWarp);
  while (fiber.groups.size() > kPending) {
    run_products(fiber.groups.front());
    fiber.groups.erase(fiber.groups.begin());
  }
  cluster().meet(warp().meeting, kWarp);
}

template <int kRegisters>
void more_registers() {}
template <int kRegisters>
void fewer_registers() {}

template <class T>
T shuffle_xor(T value, int lanes) {
  Meeting& meeting = warp().meeting;
  const int lane = thread_index() % kWarp;
  int64_t* values = warp().values[meeting.number % 2];
  std::memcpy(values + lane, &value, sizeof(T));
  cluster().meet(meeting, kWarp);
  std::memcpy(&value, values + (lane ^ lanes), sizeof(T));
  return value;
}
inline float4 load_remote(const float4* shared, int rank) {
  return *cluster().at(const_cast<float4*>(shared), rank);
}

inline void store_remote(float4* shared, int rank, float4 value, uint64_t* barrier) {
  cluster().copies.push_back(
      [to = cluster().at(shared, rank), value, full = cluster().at(barrier, rank)] {
        *to = value;
        barrier_at(full).bytes -= sizeof(value);
        barrier_at(full).settle();
      });
}

inline int32_t atomic_max(int32_t* to, int32_t value) {
  const int32_t old = *to;
  if (value > old) *to = value;
  return old;
}
inline void atomic_or(int32_t* to, int32_t value) { *to |= value; }
inline int64_t atomic_increment(int64_t* to) { return (*to)++; }

}  // namespace hopper
}  // namespace dynal
