// How the rows of a mapped file are read ahead of their use.
#pragma once

#include "farthest_first.h"

namespace dynal {
namespace farthest_first {

// Which rows come next: what the system guesses, all of them in order, or what `prefetch` says.
enum class Order : int { guessed, given, told };

void expect(const Matrix& matrix, int64_t columns, int64_t rows, Order order);

// Starts to read `rows` (count,), in any order: neighbours together, and without waiting.
void prefetch(const Matrix& matrix, int64_t columns, const int32_t* rows, int64_t count);

}  // namespace farthest_first
}  // namespace dynal
