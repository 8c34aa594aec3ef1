// The compiled kernels as a process of their own, so that they can run on an emulated CPU.
//
// A call comes from Python as a number and its arguments; addresses are those of Python's memory. A
// page of it is fetched when a kernel first touches it, and what has changed is sent back at the
// end of the call. So every test of the kernels runs as it is; see emulated.py for the other side.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../csrc/common/cpu.h"
#include "../../csrc/dense_discrepancy/dense_discrepancy.h"
#include "../../csrc/farthest_first/farthest_first.h"
#include "../../csrc/kmeans_plusplus/kmeans_plusplus.h"
#include "../../csrc/pool_stats/pool_stats.h"

namespace {

constexpr size_t kPage = 4096;
constexpr uintptr_t kMoved = uintptr_t{1} << 45;  // away from this process's own memory
enum Message : int64_t { fetch, changed, returned };

struct Page {
  char* here;
  char* as_fetched;
};
Page pages[1 << 20];
size_t num_pages = 0;
std::atomic_flag fetching = ATOMIC_FLAG_INIT;

void read_all(void* into, size_t bytes) {
  for (char* at = static_cast<char*>(into); bytes;) {
    const ssize_t got = read(STDIN_FILENO, at, bytes);
    if (got <= 0) _exit(0);  // Python has ended
    at += got, bytes -= got;
  }
}

void write_all(const void* from, size_t bytes) {
  for (const char* at = static_cast<const char*>(from); bytes;) {
    const ssize_t sent = write(STDOUT_FILENO, at, bytes);
    if (sent <= 0) _exit(1);
    at += sent, bytes -= sent;
  }
}

void send(Message message, int64_t address, int64_t bytes) {
  const int64_t words[] = {message, address, bytes};
  write_all(words, sizeof words);
}

int64_t in_python(const void* here) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(here) ^ kMoved);
}

char* map_page() {
  void* const page =
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) _exit(2);
  return static_cast<char*>(page);
}

// A page that Python has and this process does not.
void on_fault(int, siginfo_t* info, void*) {
  char* const here = reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(info->si_addr) & -kPage);
  while (fetching.test_and_set()) {
  }
  bool known = false;  // another thread may have fetched it meanwhile
  for (size_t i = num_pages; i-- > 0 && !known;) known = pages[i].here == here;
  if (!known) {
    if (num_pages == sizeof pages / sizeof *pages) _exit(3);
    char *const content = map_page(), *const as_fetched = map_page();
    send(fetch, in_python(here), kPage);
    read_all(content, kPage);
    std::memcpy(as_fetched, content, kPage);
    // Whole at once: no thread sees a page without its content.
    if (mremap(content, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, here) != here) _exit(4);
    pages[num_pages++] = {here, as_fetched};
  }
  fetching.clear();
}

// Sends back the bytes that a call has changed, and forgets the pages.
void give_back() {
  for (; num_pages > 0; --num_pages) {
    const Page& page = pages[num_pages - 1];
    for (size_t begin = 0; begin < kPage;) {
      if (page.here[begin] == page.as_fetched[begin]) {
        ++begin;
        continue;
      }
      size_t end = begin + 1;  // a few equal bytes in between are those of a float
      for (size_t at = end; at < kPage && at < end + sizeof(double); ++at) {
        if (page.here[at] != page.as_fetched[at]) end = at + 1;
      }
      send(changed, in_python(page.here + begin), end - begin);
      write_all(page.here + begin, end - begin);
      begin = end;
    }
    munmap(page.here, kPage);
    munmap(page.as_fetched, kPage);
  }
}

// The arguments of a call, taken in order.
class Arguments {
 public:
  explicit Arguments(std::vector<int64_t> words) : words_(std::move(words)) {}
  int64_t integer() { return words_.at(next_++); }
  template <class T>
  T* pointer() {
    const uintptr_t address = static_cast<uintptr_t>(integer());
    return address ? reinterpret_cast<T*>(address ^ kMoved) : nullptr;
  }
  double real() {
    const int64_t word = integer();
    double x;
    std::memcpy(&x, &word, sizeof x);
    return x;
  }
  dynal::Dtype dtype() { return static_cast<dynal::Dtype>(integer()); }

 private:
  std::vector<int64_t> words_;
  size_t next_ = 0;
};

namespace ff = dynal::farthest_first;
namespace km = dynal::kmeans_plusplus;
namespace ps = dynal::pool_stats;

ff::Space space(Arguments& in) {
  if (in.integer()) {  // of outer products
    const int64_t left = in.integer(), right = in.integer();
    return ff::make_product_space(left, right, static_cast<int>(in.integer()));
  }
  const int64_t columns = in.integer();
  const bool cosine = in.integer();
  const float* const mean = in.pointer<const float>();
  return ff::make_space(columns, cosine, mean, static_cast<int>(in.integer()));
}

// Braces evaluate from left to right, as the arguments come.
ff::Matrix matrix(Arguments& in) {
  return {in.pointer<const char>(), in.integer(),     in.integer(), in.dtype(),
          in.integer() != 0,        in.integer() != 0};
}

ff::Points points(Arguments& in) {
  return {matrix(in), in.pointer<float>(), in.pointer<double>(), matrix(in),
          std::ldexp(1.0, static_cast<int>(in.integer()))};
}

ff::Groups groups(Arguments& in) {
  return {in.integer(), in.pointer<const int32_t>(), in.pointer<const int64_t>(),
          in.pointer<const int32_t>(), in.pointer<const int64_t>()};
}

struct Compared {
  ff::Space space;
  ff::Points x, y;
  ff::Groups groups;
  explicit Compared(Arguments& in)
      : space(::space(in)), x(points(in)), y(points(in)), groups(::groups(in)) {}
  ff::Pairs pairs() const { return {space, x, y, groups}; }
};

ff::Share share(Arguments& in) { return {in.integer(), in.integer()}; }

ps::Dropout dropout(Arguments& in) {
  return {static_cast<uint64_t>(in.integer()), static_cast<uint64_t>(in.integer()),
          static_cast<uint32_t>(in.integer()), static_cast<float>(in.real())};
}

ps::Head head(Arguments& in) {
  return {in.pointer<const void>(),
          in.pointer<const void>(),
          in.pointer<const void>(),
          in.integer(),
          in.dtype(),
          in.integer() != 0,
          dropout(in)};
}

ps::State tracker(Arguments& in) {
  ps::State state{};
  state.num_samples = in.integer();
  state.classes = in.integer();
  state.pass_stamp = in.pointer<const int32_t>();
  state.stamp = in.pointer<int32_t>();
  state.unknown_ids = in.pointer<int64_t>();
#define DYNAL_SET(NAME) \
  state.NAME = static_cast<decltype(state.NAME)>(static_cast<void*>(in.pointer<char>()));
  DYNAL_STATE_TENSORS(DYNAL_SET)
#undef DYNAL_SET
  state.label_bytes = static_cast<int>(in.integer());
  state.output_bytes = static_cast<int>(in.integer());
  state.activation = in.integer() ? ps::Activation::sigmoid : ps::Activation::softmax;
  return state;
}

ps::Batch batch(Arguments& in) {
  return {in.integer(),
          in.pointer<const void>(),
          static_cast<int>(in.integer()),
          in.dtype(),
          in.pointer<const void>(),
          in.pointer<const void>(),
          head(in),
          head(in),
          in.pointer<const int64_t>()};
}

int64_t bits(double x) {
  int64_t word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

// The numbers are those of FUNCTIONS in emulated.py.
std::vector<int64_t> call(int64_t function, Arguments in) {
  switch (function) {
    case 0: {
      const dynal::dense_discrepancy::Maps maps = {in.pointer<const void>(),
                                                   in.pointer<const void>(), in.dtype(),
                                                   in.integer(), in.integer()};
      return {bits(mean_squared_distance(maps, static_cast<int>(in.integer())))};
    }
    case 1: {
      const ps::State state = tracker(in);
      const ps::Batch rows = batch(in);
      ps::update(state, rows, static_cast<int>(in.integer()));
      return {};
    }
    case 2: {
      const ff::Space within = space(in);
      const ff::Points rows = points(in);
      const int64_t begin = in.integer(), end = in.integer();
      ff::Measure* const measures = in.pointer<ff::Measure>();
      ff::measure(within, rows, begin, end, measures, static_cast<int>(in.integer()));
      return {};
    }
    case 3: {
      const Compared compared(in);
      float *const lower = in.pointer<float>(), *const upper = in.pointer<float>();
      const ff::Share part = share(in);
      return {ff::distances(compared.pairs(), lower, upper, part, static_cast<int>(in.integer()))};
    }
    case 4: {
      const Compared compared(in);
      float* const bound = in.pointer<float>();
      const ff::Share part = share(in);
      return {ff::bound(compared.pairs(), bound, part, static_cast<int>(in.integer()))};
    }
    case 5: {
      const Compared compared(in);
      const int32_t* const first = in.pointer<const int32_t>();
      const float* const bound = in.pointer<const float>();
      float* const exact = in.pointer<float>();
      const ff::Share part = share(in);
      return {
          ff::refresh(compared.pairs(), first, bound, exact, part, static_cast<int>(in.integer()))};
    }
    case 6: {
      const Compared compared(in);
      const int32_t* const ranks = in.pointer<const int32_t>();
      const float* const bound = in.pointer<const float>();
      int64_t* const keys = in.pointer<int64_t>();
      const ff::Share part = share(in);
      return {
          ff::assign(compared.pairs(), ranks, bound, keys, part, static_cast<int>(in.integer()))};
    }
    case 7: {
      const ff::Space within = space(in);
      const ff::Points rows = points(in);
      const ff::Head front = {in.pointer<const int32_t>(), in.integer(), in.integer()};
      float* const exact = in.pointer<float>();
      const ff::Picks picks = {in.pointer<int32_t>(), in.pointer<float>(), in.integer()};
      const int64_t work = in.integer();
      const ff::Picked picked =
          ff::traverse(within, rows, front, exact, picks, work, static_cast<int>(in.integer()));
      return {picked.count, picked.done};
    }
    case 8: {
      const ff::Space within = space(in);
      const ff::Points rows = points(in), picked = points(in);
      const km::Stale stale = {in.pointer<const int32_t>(), in.pointer<const int32_t>(),
                               in.integer()};
      const km::Fired fired = {in.pointer<const int32_t>(), in.pointer<const double>(),
                               in.integer()};
      const km::Clocks clocks = {in.pointer<float>(), in.pointer<double>()};
      const ff::Share part = share(in);
      return {km::advance(within, rows, picked, stale, fired, clocks, part,
                          static_cast<int>(in.integer()))};
    }
    case 9: {
      const ff::Space within = space(in);
      const ff::Points rows = points(in);
      const km::Field field = {in.pointer<const int32_t>(), in.integer(), in.real()};
      const km::Clocks clocks = {in.pointer<float>(), in.pointer<double>()};
      const km::Finish finish = {in.pointer<int32_t>(), in.pointer<float>(), in.pointer<double>(),
                                 in.integer()};
      const int64_t work = in.integer();
      const km::Picked picked =
          km::race(within, rows, field, clocks, finish, work, static_cast<int>(in.integer()));
      return {picked.count, picked.done};
    }
  }
  _exit(5);
}

}  // namespace

int main() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, nullptr);
  for (;;) {
    int64_t request[2];  // the function, and how many arguments follow
    read_all(request, sizeof request);
    std::vector<int64_t> words(request[1]);
    read_all(words.data(), words.size() * sizeof(int64_t));
    const std::vector<int64_t> results = call(request[0], Arguments(words));
    give_back();
    send(returned, 0, static_cast<int64_t>(results.size() * sizeof(int64_t)));
    write_all(results.data(), results.size() * sizeof(int64_t));
  }
}
