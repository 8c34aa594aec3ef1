// Rows of any element type, converted to float32 or float64, whichever holds all values exactly.
#pragma once

#include "../common/elements.inl"
#include "farthest_first.h"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

using namespace dynal::DYNAL_ISA;

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

inline float number(Half half) {
  uint32_t bits = static_cast<uint32_t>(half.bits & 0x7fff) << 13;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  value *= 0x1p112f;  // exact, for subnormal halves too
  __builtin_memcpy(&bits, &value, 4);
  if ((half.bits & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= static_cast<uint32_t>(half.bits & 0x8000) << 16;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

inline float number(Bfloat narrow) {
  const uint32_t bits = static_cast<uint32_t>(narrow.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

template <typename T>
inline T number(T value) {
  return value;
}

// Whether the values need float64. Integers of 64 bits are at most 2^53 (contract.py).
inline bool is_wide(const Matrix& matrix) { return matrix.dtype >= Dtype::float64; }

template <typename Source, typename Target>
inline void convert_row(const char* source, const Matrix& points, int64_t columns, Target* target) {
  constexpr int64_t size = sizeof(Source);
  Source item;
  if (points.column_bytes == size && !points.swapped) {
    for (int64_t k = 0; k < columns; ++k) {
      __builtin_memcpy(&item, source + k * size, size);
      target[k] = static_cast<Target>(number(item));
    }
    return;
  }
  for (int64_t k = 0; k < columns; ++k) {
    char bytes[size];
    __builtin_memcpy(bytes, source + k * points.column_bytes, size);
    if (points.swapped) {
      for (int64_t i = 0; i < size / 2; ++i) {
        const char byte = bytes[i];
        bytes[i] = bytes[size - 1 - i];
        bytes[size - 1 - i] = byte;
      }
    }
    __builtin_memcpy(&item, bytes, size);
    target[k] = static_cast<Target>(number(item));
  }
}

template <typename T>
constexpr Dtype kStored = Dtype::float32;
template <>
constexpr Dtype kStored<double> = Dtype::float64;

// Row `row` as an array of T: in place if it is one, else converted into the buffer.
template <typename T>
inline const T* exact_row(const Matrix& points, int64_t columns, int64_t row, void* buffer) {
  const char* source = points.data + row * points.row_bytes;
  if (points.dtype == kStored<T> && points.in_place) return reinterpret_cast<const T*>(source);
  T* target = static_cast<T*>(buffer);
  switch (points.dtype) {
    case Dtype::float16:
      convert_row<Half>(source, points, columns, target);
      break;
    case Dtype::bfloat16:
      convert_row<Bfloat>(source, points, columns, target);
      break;
    case Dtype::uint8:
      convert_row<uint8_t>(source, points, columns, target);
      break;
    case Dtype::int8:
      convert_row<int8_t>(source, points, columns, target);
      break;
    case Dtype::uint16:
      convert_row<uint16_t>(source, points, columns, target);
      break;
    case Dtype::int16:
      convert_row<int16_t>(source, points, columns, target);
      break;
    case Dtype::float32:
      convert_row<float>(source, points, columns, target);
      break;
    case Dtype::float64:
      convert_row<double>(source, points, columns, target);
      break;
    case Dtype::uint32:
      convert_row<uint32_t>(source, points, columns, target);
      break;
    case Dtype::int32:
      convert_row<int32_t>(source, points, columns, target);
      break;
    case Dtype::uint64:
      convert_row<uint64_t>(source, points, columns, target);
      break;
    default:
      convert_row<int64_t>(source, points, columns, target);
  }
  return target;
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal
