#include "team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace dynal {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::microseconds(30);  // of a thread that waits awake
constexpr int kMostWorkers = 1024;

struct Job {
  void (*call)(const void* work, int part);
  const void* work;
  int parts;
  std::atomic<int> next{0}, ended{0};
  int workers = 0;  // that look at it; guarded by the mutex

  void run() {
    for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1)) {
      call(work, part);
      ended.fetch_add(1, std::memory_order_release);
    }
  }
};

// Waits for a short time, leaving the core to whoever wants it; whether `done` came true.
template <class Done>
bool wait_awake(const Done& done) {
  const Clock::time_point end = Clock::now() + kPatience;
  while (!done()) {
    if (Clock::now() > end) return false;
    sched_yield();
  }
  return true;
}

// Threads that live as long as the process, and what they may help with.
class Workers {
 public:
  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      jobs_.push_back(&job);
      open_.fetch_add(1);
      const int wanted = std::min(job.parts - 1, kMostWorkers - workers_ + idle_);
      for (int more = wanted - idle_; more > 0; --more) {
        if (!start()) break;
      }
    }
    for (int i = 1; i < job.parts; ++i) work_.notify_one();
    job.run();
    std::unique_lock<std::mutex> lock(mutex_);
    close(job);
    if (job.workers == 0) return;
    lock.unlock();
    wait_awake([&] { return job.ended.load(std::memory_order_acquire) == job.parts; });
    lock.lock();
    ended_.wait(lock, [&] { return job.workers == 0; });
  }

 private:
  bool start() {
    try {
      std::thread(&Workers::help, this).detach();
    } catch (const std::system_error&) {
      return false;  // the caller runs all parts
    }
    ++workers_;
    ++idle_;
    return true;
  }

  void close(Job& job) {
    const auto at = std::find(jobs_.begin(), jobs_.end(), &job);
    if (at == jobs_.end()) return;
    jobs_.erase(at);
    open_.fetch_sub(1);
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (jobs_.empty()) {
        lock.unlock();
        wait_awake([&] { return open_.load(std::memory_order_relaxed) > 0; });
        lock.lock();
        work_.wait(lock, [&] { return !jobs_.empty(); });
      }
      Job& job = *jobs_.front();
      ++job.workers;
      --idle_;
      lock.unlock();
      job.run();
      lock.lock();
      close(job);  // no part is left
      ++idle_;
      if (--job.workers == 0) ended_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, ended_;
  std::vector<Job*> jobs_;    // with parts that nobody has begun
  std::atomic<int> open_{0};  // their number
  int workers_ = 0, idle_ = 0;
};

// Never destroyed, as its threads run until the process ends. A child of fork() has none of them:
// it starts anew.
alignas(Workers) unsigned char storage[sizeof(Workers)];
void make() { new (storage) Workers; }

Workers& workers() {
  static const bool made = [] {
    make();
    pthread_atfork(nullptr, nullptr, make);
    return true;
  }();
  (void)made;
  return *std::launder(reinterpret_cast<Workers*>(storage));
}

}  // namespace

void run_parts(int parts, void (*call)(const void*, int), const void* work) {
  Job job;
  job.call = call;
  job.work = work;
  job.parts = parts;
  workers().run(job);
}

}  // namespace dynal
