// Teams of threads, and scratch memory for them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef DYNAL_X86_64
#include <xmmintrin.h>
#endif

namespace dynal {

// Confident outputs make many denormal products, which take some CPUs a hundred cycles each.
class FlushDenormals {
#ifdef DYNAL_X86_64
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
#endif
};

// Calls call(work, part) for each part from 0 on, in this thread and in others that are free. Who
// waits sleeps. Parts must not wait for each other, as one thread may run several of them.
void run_parts(int parts, void (*call)(const void* work, int part), const void* work);

// Calls work(part) likewise.
template <class Work>
void in_parts(int parts, const Work& work) {
  if (parts <= 1) {
    work(0);
    return;
  }
  run_parts(parts, [](const void* w, int part) { (*static_cast<const Work*>(w))(part); }, &work);
}

// Calls work(part, parts) likewise, with denormal numbers flushed to zero.
template <class Work>
void in_flushed_parts(int parts, const Work& work) {
  in_parts(parts, [&](int part) {
    [[maybe_unused]] const FlushDenormals flush;
    work(part, parts);
  });
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

inline std::unique_ptr<float, Free> aligned_floats(int64_t n) {
  if (!n) return nullptr;
  const size_t bytes = (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, bytes);
  if (!p) throw std::bad_alloc();
  return std::unique_ptr<float, Free>(static_cast<float*>(p));
}

}  // namespace dynal
