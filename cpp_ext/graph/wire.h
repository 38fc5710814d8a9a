// Writing the protobuf wire format into memory of known size (reading is
// protozero's).
#ifndef TESSERA_CPP_EXT_GRAPH_WIRE_H_
#define TESSERA_CPP_EXT_GRAPH_WIRE_H_

#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace tessera {

inline size_t VarintSize(uint64_t value) {
  // Seven bits a byte; `| 1` because zero takes a byte too.
  return (static_cast<size_t>(63 - __builtin_clzll(value | 1)) * 9 + 73) / 64;
}

inline uint8_t* WriteVarint(uint64_t value, uint8_t* to) {
  while (value >= 0x80) {
    *to++ = static_cast<uint8_t>(value) | 0x80;
    value >>= 7;
  }
  *to++ = static_cast<uint8_t>(value);
  return to;
}

// Sizes and bytes of a length-delimited field whose payload follows or is
// given.
inline size_t DelimitedSize(uint32_t field, size_t payload_bytes) {
  return VarintSize(field << 3) + VarintSize(payload_bytes) + payload_bytes;
}

inline uint8_t* WriteDelimitedHeader(uint32_t field, size_t payload_bytes, uint8_t* to) {
  return WriteVarint(payload_bytes, WriteVarint((field << 3) | 2, to));
}

inline uint8_t* WriteBytes(const void* data, size_t size_bytes, uint8_t* to) {
  if (size_bytes != 0) memcpy(to, data, size_bytes);
  return to + size_bytes;
}

inline uint8_t* WriteDelimited(uint32_t field, absl::string_view payload, uint8_t* to) {
  return WriteBytes(payload.data(), payload.size(), WriteDelimitedHeader(field, payload.size(), to));
}

inline size_t VarintFieldSize(uint32_t field, uint64_t value) { return VarintSize(field << 3) + VarintSize(value); }

inline uint8_t* WriteVarintField(uint32_t field, uint64_t value, uint8_t* to) {
  return WriteVarint(value, WriteVarint(field << 3, to));
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_WIRE_H_
