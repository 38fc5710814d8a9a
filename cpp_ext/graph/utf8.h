// Texts that quote what a client sent.
#ifndef TESSERA_CPP_EXT_GRAPH_UTF8_H_
#define TESSERA_CPP_EXT_GRAPH_UTF8_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// Returns `text` with every byte that is not part of a UTF-8 sequence replaced
// by '?'; status texts must be UTF-8.
inline std::string ToUtf8(absl::string_view text) {
  std::string out(text);
  for (size_t i = 0; i < out.size();) {
    const auto lead = static_cast<uint8_t>(out[i]);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    bool valid = length != 0 && i + length <= out.size();
    for (size_t k = 1; valid && k < length; ++k) valid = (static_cast<uint8_t>(out[i + k]) & 0xC0) == 0x80;
    if (valid && length >= 3) {
      const auto next = static_cast<uint8_t>(out[i + 1]);
      // No overlong forms, no surrogates, nothing above U+10FFFF.
      valid = !(lead == 0xE0 && next < 0xA0) && !(lead == 0xED && next >= 0xA0) && !(lead == 0xF0 && next < 0x90) &&
              !(lead == 0xF4 && next >= 0x90);
    }
    if (!valid) out[i] = '?';
    i += valid ? length : 1;
  }
  return out;
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_UTF8_H_
