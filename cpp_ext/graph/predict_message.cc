#include "cpp_ext/graph/predict_message.h"

#include <cassert>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_encode.h"

namespace tessera {
namespace {

constexpr uint32_t kResponseOutputs = 1;
constexpr uint32_t kResponseModelSpec = 2;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;

size_t EntryBytes(absl::string_view alias, size_t tensor_bytes) {
  return DelimitedSize(kMapKey, alias.size()) + DelimitedSize(kMapValue, tensor_bytes);
}

}  // namespace

absl::Status EncodePredictResponse(absl::Span<const PredictOutput> outputs, const ServedSpec& spec, bool tensor_content,
                                   EncodedResponse* response) {
  const size_t spec_bytes = spec.size_bytes();
  size_t size_bytes = DelimitedSize(kResponseModelSpec, spec_bytes);
  absl::InlinedVector<TensorEncoder, 4> encoders(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const absl::Status status = encoders[i].Init(*outputs[i].tensor, tensor_content);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("output ", outputs[i].alias, ": ", status.message()));
    }
    size_bytes += DelimitedSize(kResponseOutputs, EntryBytes(outputs[i].alias, encoders[i].size_bytes()));
  }
  absl::Status status = response->Allocate(size_bytes);
  if (!status.ok()) return status;
  uint8_t* to = response->data;
  for (size_t i = 0; i < outputs.size(); ++i) {
    to = WriteDelimitedHeader(kResponseOutputs, EntryBytes(outputs[i].alias, encoders[i].size_bytes()), to);
    to = WriteDelimited(kMapKey, outputs[i].alias, to);
    to = WriteDelimitedHeader(kMapValue, encoders[i].size_bytes(), to);
    to = encoders[i].Write(to);
  }
  to = spec.Write(WriteDelimitedHeader(kResponseModelSpec, spec_bytes, to));
  assert(to == response->data + size_bytes);
  return absl::OkStatus();
}

}  // namespace tessera
