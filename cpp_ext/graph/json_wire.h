// Appending to a message in the protobuf wire format, for what is built while JSON is read.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_WIRE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_WIRE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

inline void AppendVarint(uint64_t value, std::string* to) {
  while (value >= 0x80) {
    to->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  to->push_back(static_cast<char>(value));
}

inline void AppendVarintField(uint32_t field, uint64_t value, std::string* to) {
  AppendVarint(field << 3, to);
  AppendVarint(value, to);
}

inline void AppendDelimited(uint32_t field, std::string_view payload, std::string* to) {
  AppendVarint((field << 3) | 2, to);
  AppendVarint(payload.size(), to);
  to->append(payload);
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_WIRE_H_
