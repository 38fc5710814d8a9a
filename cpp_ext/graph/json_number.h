// Floating-point numbers as TensorFlow Serving's REST API prints them.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_NUMBER_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_NUMBER_H_

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

namespace tessera {

// Room for any number that PrintDecimal prints.
constexpr size_t kDecimalBytes = 40;

// Six digits where they are enough to read the same `value` again, all digits otherwise; whole numbers end in ".0", so
// that readers see one type in a list. NaN and ±Infinity, which JSON does not have, are printed as these words.
template <typename T>
std::string_view PrintDecimal(T value, char (&buffer)[kDecimalBytes]) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char* end = std::to_chars(buffer, buffer + kDecimalBytes, value, std::chars_format::general, 6).ptr;
  T again = 0;
  if (std::from_chars(buffer, end, again).ec != std::errc() || again != value) {
    constexpr int kAllDigits = std::numeric_limits<T>::max_digits10;
    end = std::to_chars(buffer, buffer + kDecimalBytes, value, std::chars_format::general, kAllDigits).ptr;
  }
  const auto size = static_cast<size_t>(end - buffer);
  if (memchr(buffer, '.', size) == nullptr && memchr(buffer, 'e', size) == nullptr) {
    memcpy(end, ".0", 2);
    end += 2;
  }
  return {buffer, static_cast<size_t>(end - buffer)};
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_NUMBER_H_
