#include "reading.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace dynal {
namespace farthest_first {
namespace {

constexpr uintptr_t kRun = 4 << 20;  // bytes of one request: the system splits longer ones

struct Bytes {
  uintptr_t begin, end;
};

Bytes bytes_of(const Matrix& matrix, int64_t columns, int64_t row) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(matrix.data) + row * matrix.row_bytes;
  const int64_t last = (columns - 1) * matrix.column_bytes;
  const int64_t item = kItemBytes[static_cast<int>(matrix.dtype)];
  return {at + std::min<int64_t>(last, 0), at + std::max<int64_t>(last, 0) + item};
}

uintptr_t page_size() { return static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)); }

void advise(Bytes bytes, int advice) {
  const uintptr_t begin = bytes.begin / page_size() * page_size();
  // What cannot be advised is read when it is used.
  (void)madvise(reinterpret_cast<void*>(begin), bytes.end - begin, advice);
}

}  // namespace

void expect(const Matrix& matrix, int64_t columns, int64_t rows, Order order) {
  if (rows == 0) return;
  constexpr int kAdvice[] = {MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM};
  const Bytes first = bytes_of(matrix, columns, 0), last = bytes_of(matrix, columns, rows - 1);
  advise({std::min(first.begin, last.begin), std::max(first.end, last.end)},
         kAdvice[static_cast<int>(order)]);
}

void prefetch(const Matrix& matrix, int64_t columns, const int32_t* rows, int64_t count) {
  if (count == 0) return;
  std::vector<int32_t> sorted(rows, rows + count);
  std::sort(sorted.begin(), sorted.end());
  if (matrix.row_bytes < 0) std::reverse(sorted.begin(), sorted.end());
  const uintptr_t page = page_size();
  Bytes run = bytes_of(matrix, columns, sorted[0]);
  for (const int32_t row : sorted) {
    const Bytes next = bytes_of(matrix, columns, row);
    // Rows of one page, or of pages that touch, are asked for together; nothing between is read.
    if (next.begin / page > (run.end - 1) / page + 1 || next.end - run.begin > kRun) {
      advise(run, MADV_WILLNEED);
      run = next;
    }
    run.end = std::max(run.end, next.end);
  }
  advise(run, MADV_WILLNEED);
}

}  // namespace farthest_first
}  // namespace dynal
