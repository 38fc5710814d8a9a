#include "cpp_ext/graph/inference_message.h"

#include <cassert>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

constexpr absl::string_view kInputs = "inputs";
constexpr absl::string_view kClasses = "classes";
constexpr absl::string_view kScores = "scores";
constexpr absl::string_view kRegressions = "outputs";
constexpr uint32_t kResponseResult = 1;
constexpr uint32_t kResponseModelSpec = 2;
constexpr uint32_t kResultItems = 1;  // classifications, or regressions
constexpr uint32_t kClassificationClasses = 1;
constexpr uint32_t kClassLabel = 1;
constexpr uint32_t kClassScore = 2;
constexpr uint32_t kRegressionValue = 1;
constexpr uint32_t kMultiResults = 1;
constexpr uint32_t kTaskModelSpec = 1;
constexpr uint32_t kTaskClassification = 2;
constexpr uint32_t kTaskRegression = 3;
constexpr size_t kMaxContextBytes = size_t{256} << 20;  // of all copies: a small message can ask for many

absl::Status Bad(const std::string& text) { return absl::InvalidArgumentError(text); }

std::string Describe(const Signature& signature) {
  const auto aliases = [](const auto& items) {
    return absl::StrJoin(items, ",", [](std::string* out, const auto& item) { out->append(item.alias); });
  };
  return absl::StrCat("inputs {", aliases(signature.inputs()), "} outputs {", aliases(signature.outputs()),
                      "} method_name: \"", signature.method_name(), "\"");
}

// A float field; like protobuf, a zero (but not a negative one) is not sent.
bool IsSent(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits != 0;
}
size_t FloatFieldSize(uint32_t field, float value) {
  return IsSent(value) ? VarintSize(field << 3) + sizeof(value) : 0;
}
uint8_t* WriteFloatField(uint32_t field, float value, uint8_t* to) {
  if (!IsSent(value)) return to;
  return WriteBytes(&value, sizeof(value), WriteVarint((field << 3) | 5, to));  // little-endian, as the hosts we run on
}

absl::Status CheckClassTensor(const char* name, const char* type_name, tf::DataType dtype, const tf::Tensor& tensor,
                              int64_t examples) {
  if (tensor.dims() != 2) {
    return Bad(absl::StrCat("Expected Tensor shape: [batch_size num_classes] but got ", tensor.shape().DebugString()));
  }
  if (tensor.dtype() != dtype) {
    return Bad(absl::StrCat("Expected ", name, " Tensor of ", type_name, ". Got: ", tf::DataType_Name(tensor.dtype())));
  }
  if (tensor.dim_size(0) != examples) {
    return Bad(absl::StrCat("Expected ", name, " output batch size of ", examples, ". Got: ", tensor.dim_size(0)));
  }
  return absl::OkStatus();
}

uint32_t ResultField(const InferenceResult& result) {
  return result.is_regression() ? kTaskRegression : kTaskClassification;
}

size_t TaskBytes(const TaskResult& task) {
  return DelimitedSize(kTaskModelSpec, task.spec.size_bytes()) +
         DelimitedSize(ResultField(task.result), task.result.size_bytes());
}

}  // namespace

absl::StatusOr<tf::Tensor> ExamplesTensor(const RequestView& request) {
  if (request.examples.empty()) return Bad("Input is empty.");
  size_t context_bytes = 0;
  for (const absl::string_view part : request.context) context_bytes += part.size();
  if (context_bytes > kMaxContextBytes / request.examples.size()) {
    return Bad(absl::StrCat("input.example_list_with_context.context: got ", context_bytes,
                            " bytes, in front of each of ", request.examples.size(), " examples; expected at most ",
                            kMaxContextBytes, " bytes in all"));
  }
  tf::Tensor tensor(tf::DT_STRING, tf::TensorShape({static_cast<int64_t>(request.examples.size())}));
  auto values = tensor.vec<tf::tstring>();
  for (size_t i = 0; i < request.examples.size(); ++i) {
    const absl::string_view example = request.examples[i];
    tf::tstring& value = values(static_cast<int64_t>(i));
    value.resize_uninitialized(context_bytes + example.size());
    char* to = value.mdata();
    for (const absl::string_view part : request.context) {
      if (!part.empty()) memcpy(to, part.data(), part.size());
      to += part.size();
    }
    if (!example.empty()) memcpy(to, example.data(), example.size());
  }
  return tensor;
}

absl::StatusOr<InferenceOutputs> FindInferenceOutputs(Method method, const Signature& signature,
                                                      bool check_method_name) {
  const bool classify = method == Method::kClassify;
  const absl::string_view method_name = classify ? kClassifyMethodName : kRegressMethodName;
  const char* const kind = classify ? "classification" : "regression";
  if (check_method_name && signature.method_name() != method_name) {
    return Bad(absl::StrCat("Expected ", kind, " signature method_name to be ", method_name,
                            ". Was: ", signature.method_name()));
  }
  if (signature.inputs().size() != 1) return Bad("Expected one input Tensor.");
  const size_t outputs = signature.outputs().size();
  if (classify && outputs != 1 && outputs != 2) {
    return Bad(absl::StrCat("Expected one or two output Tensors, found ", outputs));
  }
  if (!classify && outputs != 1) return Bad("Expected one output Tensor.");
  if (signature.FindInput(kInputs) < 0) {
    return Bad(absl::StrCat("No ", kind, " inputs found in SignatureDef: ", Describe(signature)));
  }
  InferenceOutputs found;
  if (!classify) {
    found.regressions = signature.FindOutput(kRegressions);
    if (found.regressions >= 0) return found;
    return Bad(absl::StrCat("No regression outputs found in SignatureDef: ", Describe(signature)));
  }
  found.classes = signature.FindOutput(kClasses);
  found.scores = signature.FindOutput(kScores);
  if (found.classes >= 0 || found.scores >= 0) return found;
  return Bad(absl::StrCat("Expected classification signature outputs to contain at least one of \"", kClasses,
                          "\" or \"", kScores, "\". Signature was: ", Describe(signature)));
}

absl::StatusOr<InferenceResult> InferenceResult::Classify(const tf::Tensor* classes, const tf::Tensor* scores,
                                                          int64_t examples) {
  InferenceResult result;
  result.examples_ = examples;
  if (classes != nullptr) {
    absl::Status status = CheckClassTensor("classes", "DT_STRING", tf::DT_STRING, *classes, examples);
    if (!status.ok()) return status;
    result.labels_ = classes->flat<tf::tstring>().data();
    result.classes_ = classes->dim_size(1);
  }
  if (scores != nullptr) {
    absl::Status status = CheckClassTensor("scores", "DT_FLOAT", tf::DT_FLOAT, *scores, examples);
    if (!status.ok()) return status;
    result.values_ = scores->flat<float>().data();
    result.classes_ = scores->dim_size(1);
  }
  if (classes != nullptr && scores != nullptr && classes->dim_size(1) != scores->dim_size(1)) {
    return Bad(absl::StrCat("Tensors class and score should match in dim_size(1). Got ", classes->dim_size(1), " vs. ",
                            scores->dim_size(1)));
  }
  return result;
}

absl::StatusOr<InferenceResult> InferenceResult::Regress(const tf::Tensor& regressions, int64_t examples) {
  const tf::TensorShape& shape = regressions.shape();
  if (shape.dims() != 1 && (shape.dims() != 2 || shape.dim_size(1) != 1)) {
    return Bad(absl::StrCat("Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got ",
                            shape.DebugString()));
  }
  if (shape.dim_size(0) != examples) {
    return Bad(
        absl::StrCat("Input batch size did not match output batch size: ", examples, " vs. ", shape.dim_size(0)));
  }
  if (regressions.dtype() != tf::DT_FLOAT) {
    return Bad(absl::StrCat("Expected output Tensor of DT_FLOAT.  Got: ", tf::DataType_Name(regressions.dtype())));
  }
  InferenceResult result;
  result.is_regression_ = true;
  result.examples_ = examples;
  result.values_ = regressions.flat<float>().data();
  return result;
}

size_t InferenceResult::ClassBytes(int64_t position) const {
  size_t bytes = 0;
  if (labels_ != nullptr && !labels_[position].empty()) bytes += DelimitedSize(kClassLabel, labels_[position].size());
  if (values_ != nullptr) bytes += FloatFieldSize(kClassScore, values_[position]);
  return bytes;
}

size_t InferenceResult::ClassificationBytes(int64_t example) const {
  size_t bytes = 0;
  for (int64_t i = 0; i < classes_; ++i) {
    bytes += DelimitedSize(kClassificationClasses, ClassBytes(example * classes_ + i));
  }
  return bytes;
}

size_t InferenceResult::size_bytes() const {
  size_t bytes = 0;
  for (int64_t i = 0; i < examples_; ++i) {
    bytes += DelimitedSize(kResultItems,
                           is_regression_ ? FloatFieldSize(kRegressionValue, values_[i]) : ClassificationBytes(i));
  }
  return bytes;
}

uint8_t* InferenceResult::Write(uint8_t* to) const {
  for (int64_t i = 0; i < examples_; ++i) {
    if (is_regression_) {
      to = WriteDelimitedHeader(kResultItems, FloatFieldSize(kRegressionValue, values_[i]), to);
      to = WriteFloatField(kRegressionValue, values_[i], to);
      continue;
    }
    to = WriteDelimitedHeader(kResultItems, ClassificationBytes(i), to);
    for (int64_t at = i * classes_; at < (i + 1) * classes_; ++at) {
      to = WriteDelimitedHeader(kClassificationClasses, ClassBytes(at), to);
      if (labels_ != nullptr && !labels_[at].empty()) {
        to = WriteDelimited(kClassLabel, absl::string_view(labels_[at].data(), labels_[at].size()), to);
      }
      if (values_ != nullptr) to = WriteFloatField(kClassScore, values_[at], to);
    }
  }
  return to;
}

absl::Status EncodeInferenceResponse(const InferenceResult& result, const ServedSpec& spec, EncodedResponse* response) {
  const size_t result_bytes = result.size_bytes();
  const size_t spec_bytes = spec.size_bytes();
  absl::Status status =
      response->Allocate(DelimitedSize(kResponseResult, result_bytes) + DelimitedSize(kResponseModelSpec, spec_bytes));
  if (!status.ok()) return status;
  uint8_t* to = WriteDelimitedHeader(kResponseResult, result_bytes, response->data);
  to = result.Write(to);
  to = spec.Write(WriteDelimitedHeader(kResponseModelSpec, spec_bytes, to));
  assert(to == response->data + response->size_bytes);
  return absl::OkStatus();
}

absl::Status EncodeMultiInferenceResponse(absl::Span<const TaskResult> results, EncodedResponse* response) {
  size_t size_bytes = 0;
  for (const TaskResult& task : results) size_bytes += DelimitedSize(kMultiResults, TaskBytes(task));
  absl::Status status = response->Allocate(size_bytes);
  if (!status.ok()) return status;
  uint8_t* to = response->data;
  for (const TaskResult& task : results) {
    to = WriteDelimitedHeader(kMultiResults, TaskBytes(task), to);
    to = task.spec.Write(WriteDelimitedHeader(kTaskModelSpec, task.spec.size_bytes(), to));
    to = task.result.Write(WriteDelimitedHeader(ResultField(task.result), task.result.size_bytes(), to));
  }
  assert(to == response->data + response->size_bytes);
  return absl::OkStatus();
}

}  // namespace tessera
