#include "cpp_ext/graph/predict_message.h"

#include <stdlib.h>

#include <algorithm>
#include <cassert>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_encode.h"
#include "cpp_ext/graph/wire.h"
#include "protozero/pbf_reader.hpp"

namespace tessera {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr uint32_t kRequestModelSpec = 1;
constexpr uint32_t kRequestInputs = 2;
constexpr uint32_t kRequestOutputFilter = 3;
constexpr uint32_t kSpecName = 1;
constexpr uint32_t kSpecVersion = 2;
constexpr uint32_t kSpecSignature = 3;
constexpr uint32_t kSpecLabel = 4;
constexpr uint32_t kResponseOutputs = 1;
constexpr uint32_t kResponseModelSpec = 2;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr uint32_t kWrappedValue = 1;

absl::string_view View(protozero::data_view view) { return {view.data(), view.size()}; }

bool IsDelimited(const pbf_reader& reader) { return reader.wire_type() == pbf_wire_type::length_delimited; }

void ReadModelSpec(pbf_reader spec, PredictRequestView* view) {
  view->has_model_spec = true;
  while (spec.next()) {
    if (!IsDelimited(spec)) {
      spec.skip();
      continue;
    }
    switch (spec.tag()) {
      case kSpecName:
        view->model = View(spec.get_view());
        break;
      case kSpecSignature:
        view->signature = View(spec.get_view());
        break;
      case kSpecLabel:
        view->label = View(spec.get_view());
        view->choice = PredictRequestView::Choice::kLabel;
        break;
      case kSpecVersion: {
        pbf_reader wrapped = spec.get_message();
        view->version = 0;
        view->choice = PredictRequestView::Choice::kVersion;
        while (wrapped.next()) {
          if (wrapped.tag() == kWrappedValue && wrapped.wire_type() == pbf_wire_type::varint) {
            view->version = wrapped.get_int64();
          } else {
            wrapped.skip();
          }
        }
        break;
      }
      default:
        spec.skip();
    }
  }
}

PredictRequestView::Input ReadInput(pbf_reader entry) {
  PredictRequestView::Input input;
  while (entry.next()) {
    if (entry.tag() == kMapKey && IsDelimited(entry)) {
      input.alias = View(entry.get_view());
    } else if (entry.tag() == kMapValue && IsDelimited(entry)) {
      input.tensor = View(entry.get_view());
    } else {
      entry.skip();
    }
  }
  return input;
}

// Keeps the last entry of each alias. Requests have few inputs, so comparing
// all pairs is cheapest; many go by hash.
void DropRepeatedInputs(PredictRequestView* view) {
  auto& inputs = view->inputs;
  if (inputs.size() < 2) return;
  std::unordered_map<absl::string_view, size_t> last;
  const bool many = inputs.size() > 32;
  if (many) {
    for (size_t i = 0; i < inputs.size(); ++i) last[inputs[i].alias] = i;
  }
  const auto repeated_later = [&](size_t i) {
    if (many) return last[inputs[i].alias] != i;
    return std::any_of(inputs.begin() + i + 1, inputs.end(),
                       [&](const PredictRequestView::Input& later) { return later.alias == inputs[i].alias; });
  };
  size_t kept = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!repeated_later(i)) inputs[kept++] = inputs[i];
  }
  inputs.resize(kept);
}

size_t EntryBytes(absl::string_view alias, size_t tensor_bytes) {
  return DelimitedSize(kMapKey, alias.size()) + DelimitedSize(kMapValue, tensor_bytes);
}

}  // namespace

absl::Status ParsePredictRequest(absl::string_view message, PredictRequestView* view) {
  try {
    pbf_reader request(message.data(), message.size());
    while (request.next()) {
      if (!IsDelimited(request)) {
        request.skip();
        continue;
      }
      switch (request.tag()) {
        case kRequestModelSpec:
          ReadModelSpec(request.get_message(), view);
          break;
        case kRequestInputs:
          view->inputs.push_back(ReadInput(request.get_message()));
          break;
        case kRequestOutputFilter:
          view->output_filter.push_back(View(request.get_view()));
          break;
        default:
          request.skip();
      }
    }
  } catch (const protozero::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("PredictRequest: the message of ", message.size(), " bytes cannot be parsed: ", error.what()));
  }
  DropRepeatedInputs(view);
  return absl::OkStatus();
}

absl::Status EncodePredictResponse(absl::Span<const PredictOutput> outputs, absl::string_view model, int64_t version,
                                   absl::string_view signature, bool tensor_content, EncodedResponse* response) {
  const size_t wrapped_bytes = version == 0 ? 0 : VarintFieldSize(kWrappedValue, static_cast<uint64_t>(version));
  const size_t spec_bytes = DelimitedSize(kSpecName, model.size()) + DelimitedSize(kSpecVersion, wrapped_bytes) +
                            DelimitedSize(kSpecSignature, signature.size());
  size_t size_bytes = DelimitedSize(kResponseModelSpec, spec_bytes);
  absl::InlinedVector<TensorEncoder, 4> encoders(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const absl::Status status = encoders[i].Init(*outputs[i].tensor, tensor_content);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("output ", outputs[i].alias, ": ", status.message()));
    }
    size_bytes += DelimitedSize(kResponseOutputs, EntryBytes(outputs[i].alias, encoders[i].size_bytes()));
  }
  response->data = static_cast<uint8_t*>(malloc(size_bytes));
  if (response->data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a response of ", size_bytes, " bytes"));
  }
  response->size_bytes = size_bytes;
  uint8_t* to = response->data;
  for (size_t i = 0; i < outputs.size(); ++i) {
    to = WriteDelimitedHeader(kResponseOutputs, EntryBytes(outputs[i].alias, encoders[i].size_bytes()), to);
    to = WriteDelimited(kMapKey, outputs[i].alias, to);
    to = WriteDelimitedHeader(kMapValue, encoders[i].size_bytes(), to);
    to = encoders[i].Write(to);
  }
  to = WriteDelimitedHeader(kResponseModelSpec, spec_bytes, to);
  to = WriteDelimited(kSpecName, model, to);
  to = WriteDelimitedHeader(kSpecVersion, wrapped_bytes, to);
  if (version != 0) to = WriteVarintField(kWrappedValue, static_cast<uint64_t>(version), to);
  to = WriteDelimited(kSpecSignature, signature, to);
  assert(to == response->data + size_bytes);
  return absl::OkStatus();
}

}  // namespace tessera
