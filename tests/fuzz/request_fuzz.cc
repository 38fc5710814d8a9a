// libFuzzer: the requests of all methods as views, and the tensors of Predict. The first byte chooses the method.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/tensor_decode.h"

namespace {

// Aborts when a view does not lie in what it may refer to; reads every byte of it.
void Touch(absl::string_view view) {
  static volatile char sink;
  for (const char c : view) sink = c;
}

void TouchSpec(const tessera::ModelSpecView& spec) {
  Touch(spec.model);
  Touch(spec.signature);
  Touch(spec.label);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto method = static_cast<tessera::Method>(data[0] % 4);
  const absl::string_view message(reinterpret_cast<const char*>(data) + 1, size - 1);
  static auto* const view = new tessera::RequestView;  // reused, as requests do
  view->Clear();
  if (!tessera::ParseRequest(method, message, view).ok()) return 0;
  TouchSpec(*view);
  Touch(view->client_id);
  for (const absl::string_view alias : view->output_filter) Touch(alias);
  for (const absl::string_view example : view->examples) Touch(example);
  for (const absl::string_view part : view->context) Touch(part);
  for (const auto& task : view->tasks) {
    TouchSpec(task.spec);
    Touch(task.method_name);
  }
  for (const auto& input : view->inputs) {
    Touch(input.alias);
    Touch(input.tensor);
    tensorflow::Tensor tensor;
    const absl::Status status = tessera::DecodeTensor(input.tensor, &tensor);
    if (status.ok() && !tensor.IsInitialized() && tensor.NumElements() != 0) abort();
  }
  return 0;
}
