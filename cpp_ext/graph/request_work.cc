#include "cpp_ext/graph/request_work.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/predict_message.h"
#include "cpp_ext/graph/tensor_decode.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

constexpr absl::string_view kPredictMethodName = "tensorflow/serving/predict";

absl::Status DecodeInputs(const RequestView& request, const Signature& signature, Step* step) {
  absl::InlinedVector<absl::string_view, 16> aliases;
  absl::InlinedVector<int, 16> positions;
  bool all_known = true;
  for (const RequestView::Input& input : request.inputs) {
    aliases.push_back(input.alias);
    positions.push_back(signature.FindInput(input.alias));
    all_known &= positions.back() >= 0;
  }
  if (!all_known || aliases.size() != signature.inputs().size()) {
    absl::Status status = signature.CheckInputs(aliases, positions, absl::MakeSpan(step->args()));
    if (!status.ok()) return status;
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    const absl::Status status =
        DecodeTensor(request.inputs[i].tensor, &step->args()[static_cast<size_t>(positions[i])]);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("tensor parsing error: ", aliases[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPredictMethodName(const Signature& signature) {
  const std::string& name = signature.method_name();
  if (name == kPredictMethodName || name == kClassifyMethodName || name == kRegressMethodName) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("Expected prediction signature method_name to be one of {",
                                          kPredictMethodName, ", ", kClassifyMethodName, ", ", kRegressMethodName,
                                          "}. Was: ", name));
}

const tf::Tensor& ValueOf(const SignatureOutput& output, const std::vector<tf::Tensor>& args,
                          const std::vector<tf::Tensor>& results) {
  return output.fetch >= 0 ? results[static_cast<size_t>(output.fetch)] : args[static_cast<size_t>(output.input)];
}

}  // namespace

absl::Status RequestWork::Prepare(Method method, const RequestView& request, const LoadedGraph& graph, Step* step) {
  method_ = method;
  switch (method) {
    case Method::kPredict:
      return PreparePredict(request, graph, step);
    case Method::kClassify:
    case Method::kRegress:
      return PrepareInference(request, graph, step);
    case Method::kMultiInference:
      break;
  }
  return PrepareTasks(request, graph, step);
}

absl::Status RequestWork::PreparePredict(const RequestView& request, const LoadedGraph& graph, Step* step) {
  const absl::string_view name = request.signature_or_default();
  const Runnable* runnable = graph.Find(name);
  if (runnable == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("Serving signature key \"", name, "\" not found."));
  }
  if (runnable->mode() == RunMode::kRefused) return runnable->reason();
  const Signature& signature = runnable->signature();
  absl::Status status = options_.check_method_names ? CheckPredictMethodName(signature) : absl::OkStatus();
  if (!status.ok()) return status;
  step->Reset(signature.inputs().size(), signature.fetches().size());
  status = DecodeInputs(request, signature, step);
  if (status.ok()) status = signature.SelectOutputs(request.output_filter, &outputs_);
  if (status.ok()) runnable_ = runnable;
  return status;
}

absl::Status RequestWork::PrepareInference(const RequestView& request, const LoadedGraph& graph, Step* step) {
  const absl::string_view name = request.signature_or_default();
  const Runnable* runnable = graph.Find(name);
  if (runnable == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("No signature was found with the name: ", name));
  }
  if (runnable->mode() == RunMode::kRefused) return runnable->reason();
  auto outputs = FindInferenceOutputs(method_, runnable->signature(), options_.check_method_names);
  if (!outputs.ok()) return outputs.status();
  tasks_.push_back({runnable, *outputs, {}});
  runnable_ = runnable;
  return FeedExamples(request, step);
}

absl::Status RequestWork::PrepareTasks(const RequestView& request, const LoadedGraph& graph, Step* step) {
  for (const RequestView::Task& task : request.tasks) {
    if (task.spec.model.empty()) return absl::InvalidArgumentError("Found ModelSpec with an empty model name.");
    if (task.spec.model != request.model) {
      return absl::InvalidArgumentError("All ModelSpecs in a MultiInferenceRequest must access the same model name.");
    }
    const absl::string_view name = task.spec.signature_or_default();
    const Runnable* runnable = graph.Find(name);
    // A signature is in tasks_ once, so this ends early however many tasks a message has.
    if (std::any_of(tasks_.begin(), tasks_.end(), [=](const Task& other) { return other.runnable == runnable; })) {
      return absl::InvalidArgumentError(absl::StrCat("Duplicate evaluation of signature: ", name));
    }
    if (runnable == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("Requested signature not found in model graph: ", name));
    }
    const bool classify = task.method_name == kClassifyMethodName;
    if (!classify && task.method_name != kRegressMethodName) {
      return absl::UnimplementedError(absl::StrCat("Unsupported signature method_name: ", task.method_name));
    }
    if (runnable->mode() == RunMode::kRefused) return runnable->reason();
    auto outputs = FindInferenceOutputs(classify ? Method::kClassify : Method::kRegress, runnable->signature(),
                                        options_.check_method_names);
    if (!outputs.ok()) return outputs.status();
    tasks_.push_back({runnable, *outputs, {}});
  }
  absl::InlinedVector<const Runnable*, 4> wanted;
  for (const Task& task : tasks_) wanted.push_back(task.runnable);
  runnable_ = graph.FindMerged(wanted);
  one_by_one_ = runnable_ == nullptr;
  if (one_by_one_) runnable_ = tasks_.front().runnable;
  return FeedExamples(request, step);
}

absl::Status RequestWork::FeedExamples(const RequestView& request, Step* step) {
  absl::StatusOr<tf::Tensor> examples = ExamplesTensor(request);
  if (!examples.ok()) return examples.status();
  const Signature& signature = runnable_->signature();
  step->Reset(signature.inputs().size(), signature.fetches().size());
  for (tf::Tensor& arg : step->args()) arg = *examples;
  examples_ = examples->NumElements();
  return absl::OkStatus();
}

bool RequestWork::cancellable() const {
  return runnable_->cancellable() || (one_by_one_ && std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) {
                                        return task.runnable->cancellable();
                                      }));
}

bool RequestWork::needs_context() const {
  return runnable_->mode() == RunMode::kAsync ||
         (one_by_one_ && std::any_of(tasks_.begin(), tasks_.end(),
                                     [](const Task& task) { return task.runnable->mode() == RunMode::kAsync; }));
}

bool RequestWork::Advance(Step* step) {
  if (!one_by_one_) return false;
  tasks_[running_].results = std::move(step->results());
  if (++running_ == tasks_.size()) return false;
  runnable_ = tasks_[running_].runnable;
  step->ResetResults(runnable_->signature().fetches().size());
  return true;
}

absl::StatusOr<InferenceResult> RequestWork::ResultOf(const Task& task, Step* step) const {
  const auto value = [&](int position) -> const tf::Tensor* {
    if (position < 0) return nullptr;
    const SignatureOutput& output = task.runnable->signature().outputs()[static_cast<size_t>(position)];
    if (one_by_one_) return &ValueOf(output, step->args(), task.results);
    // Either all tasks are the first one but for their names, or the aliases of the merged signature are its tensors.
    if (runnable_ == tasks_.front().runnable) return &ValueOf(output, step->args(), step->results());
    const Signature& merged = runnable_->signature();
    const auto at = static_cast<size_t>(merged.FindOutput(output.tensor));
    return &ValueOf(merged.outputs()[at], step->args(), step->results());
  };
  if (task.outputs.regressions >= 0) return InferenceResult::Regress(*value(task.outputs.regressions), examples_);
  return InferenceResult::Classify(value(task.outputs.classes), value(task.outputs.scores), examples_);
}

absl::Status RequestWork::Encode(const RequestView& request, int64_t version, Step* step, EncodedResponse* response) {
  if (method_ == Method::kPredict) {
    absl::InlinedVector<PredictOutput, 4> outputs;
    for (const SignatureOutput* output : outputs_) {
      outputs.push_back({output->alias, &ValueOf(*output, step->args(), step->results())});
    }
    return EncodePredictResponse(outputs, {request.model, version, request.signature_or_default()},
                                 options_.tensor_content, response);
  }
  absl::InlinedVector<TaskResult, 2> results;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    absl::StatusOr<InferenceResult> result = ResultOf(tasks_[i], step);
    if (!result.ok()) return result.status();
    const ModelSpecView& spec = method_ == Method::kMultiInference ? request.tasks[i].spec : request;
    results.push_back({*result, {spec.model, version, spec.signature_or_default()}});
  }
  if (method_ == Method::kMultiInference) return EncodeMultiInferenceResponse(results, response);
  return EncodeInferenceResponse(results.front().result, results.front().spec, response);
}

void RequestWork::Clear() {
  runnable_ = nullptr;
  outputs_.clear();
  tasks_.clear();
  one_by_one_ = false;
  running_ = 0;
  examples_ = 0;
}

}  // namespace tessera
