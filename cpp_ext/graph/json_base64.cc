#include "cpp_ext/graph/json_base64.h"

#include <array>
#include <cstdint>

namespace tessera {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr int8_t kSpace = -2;
constexpr int8_t kPadding = -3;

constexpr std::array<int8_t, 256> MakeValues() {
  std::array<int8_t, 256> values{};
  for (int8_t& value : values) value = -1;
  for (int i = 0; i < 64; ++i) values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
  for (const char space : {' ', '\t', '\n', '\v', '\f', '\r'}) values[static_cast<uint8_t>(space)] = kSpace;
  values['='] = kPadding;
  return values;
}

constexpr std::array<int8_t, 256> kValues = MakeValues();

}  // namespace

bool AppendBase64Decoded(std::string_view text, std::string* out) {
  out->reserve(out->size() + text.size() / 4 * 3 + 3);
  uint32_t group = 0;
  int digits = 0;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    const int8_t value = kValues[static_cast<uint8_t>(text[at])];
    if (value == kSpace) continue;
    if (value < 0) break;
    group = group << 6 | static_cast<uint32_t>(value);
    if (++digits < 4) continue;
    out->push_back(static_cast<char>(group >> 16));
    out->push_back(static_cast<char>(group >> 8));
    out->push_back(static_cast<char>(group));
    group = 0;
    digits = 0;
  }
  int padding = 0;
  for (; at < text.size(); ++at) {
    const int8_t value = kValues[static_cast<uint8_t>(text[at])];
    if (value == kPadding) {
      ++padding;
    } else if (value != kSpace) {
      return false;
    }
  }
  // The digits of the last group say how many bytes it has; padding, where there is any, must agree.
  if (digits == 1 || (padding != 0 && (digits == 0 || padding != 4 - digits))) return false;
  if (digits == 2) out->push_back(static_cast<char>(group >> 4));
  if (digits == 3) {
    out->push_back(static_cast<char>(group >> 10));
    out->push_back(static_cast<char>(group >> 2));
  }
  return true;
}

void AppendBase64Encoded(std::string_view bytes, std::string* out) {
  out->reserve(out->size() + (bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t given = bytes.size() - i < 3 ? bytes.size() - i : 3;
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < given ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out->push_back(k <= given ? kAlphabet[group >> (18 - 6 * k) & 63] : '=');
  }
}

}  // namespace tessera
