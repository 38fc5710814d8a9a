// What the responses of PredictionService have in common on the wire.
#ifndef TESSERA_CPP_EXT_GRAPH_RESPONSE_WIRE_H_
#define TESSERA_CPP_EXT_GRAPH_RESPONSE_WIRE_H_

#include <stdlib.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/graph/wire.h"

namespace tessera {

// A response message in one allocation; `data` is to be given to `free`.
struct EncodedResponse {
  uint8_t* data = nullptr;
  size_t size_bytes = 0;

  // RESOURCE_EXHAUSTED when there is no memory.
  absl::Status Allocate(size_t bytes) {
    data = static_cast<uint8_t*>(malloc(bytes == 0 ? 1 : bytes));
    if (data == nullptr)
      return absl::ResourceExhaustedError(absl::StrCat("no memory for a response of ", bytes, " bytes"));
    size_bytes = bytes;
    return absl::OkStatus();
  }
};

// A ModelSpec that says what was served; `signature` is never empty.
struct ServedSpec {
  absl::string_view model;
  int64_t version;
  absl::string_view signature;

  size_t size_bytes() const {
    return DelimitedSize(kName, model.size()) + DelimitedSize(kVersion, wrapped_bytes()) +
           DelimitedSize(kSignature, signature.size());
  }
  uint8_t* Write(uint8_t* to) const {
    to = WriteDelimited(kName, model, to);
    to = WriteDelimitedHeader(kVersion, wrapped_bytes(), to);
    if (version != 0) to = WriteVarintField(kWrappedValue, static_cast<uint64_t>(version), to);
    return WriteDelimited(kSignature, signature, to);
  }

 private:
  static constexpr uint32_t kName = 1;
  static constexpr uint32_t kVersion = 2;
  static constexpr uint32_t kSignature = 3;
  static constexpr uint32_t kWrappedValue = 1;
  size_t wrapped_bytes() const {
    return version == 0 ? 0 : VarintFieldSize(kWrappedValue, static_cast<uint64_t>(version));
  }
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_RESPONSE_WIRE_H_
