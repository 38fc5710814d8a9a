// Base64 as TensorFlow Serving's REST API reads and writes it.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_BASE64_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_BASE64_H_

#include <string>
#include <string_view>

namespace tessera {

// Appends what `text` stands for; false if it is not Base64, and then `out` holds garbage. White space is skipped, the
// padding may be missing, the alphabet is the standard one.
bool AppendBase64Decoded(std::string_view text, std::string* out);
void AppendBase64Encoded(std::string_view bytes, std::string* out);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_BASE64_H_
