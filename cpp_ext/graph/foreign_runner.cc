#include "cpp_ext/graph/foreign_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/base/clock.h"

namespace tessera {

namespace tf = tensorflow;

ForeignRunner::ForeignRunner(std::string name, const ForeignModel* model, WorkerPool* pool, Signature signature,
                             const tf::SignatureDef& def)
    : name_(std::move(name)), model_(model), pool_(pool), signature_(std::move(signature)) {
  const auto declare = [](const std::string& alias, const tf::TensorInfo& info) {
    return Declared{alias, info.dtype(), tf::PartialTensorShape(info.tensor_shape())};
  };
  for (const SignatureInput& input : signature_.inputs()) {
    inputs_.push_back(declare(input.alias, def.inputs().at(input.alias)));
  }
  outputs_.resize(signature_.fetches().size());
  for (const SignatureOutput& output : signature_.outputs()) {
    if (output.fetch < 0) continue;
    outputs_[static_cast<size_t>(output.fetch)] = declare(output.alias, def.outputs().at(output.alias));
  }
}

std::string ForeignRunner::Difference(const Declared& declared, const tf::Tensor& given) {
  if (given.dtype() != declared.dtype) {
    return absl::StrCat("has type ", tf::DataTypeString(given.dtype()), ", expected ",
                        tf::DataTypeString(declared.dtype));
  }
  if (declared.shape.IsCompatibleWith(given.shape())) return "";
  return absl::StrCat("has shape ", given.shape().DebugString(), ", expected ", declared.shape.DebugString());
}

void ForeignRunner::RunAsync(Step* step) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const std::string difference = Difference(inputs_[i], step->args()[i]);
    if (difference.empty()) continue;
    return step->Finish(absl::InvalidArgumentError(absl::StrCat("input ", inputs_[i].alias, " ", difference)));
  }
  if (!pool_->Submit([this, step] { step->Finish(Run(step)); })) {
    step->Finish(absl::ResourceExhaustedError(absl::StrCat(name_, ": too many requests wait for a worker")));
  }
}

absl::Status ForeignRunner::Run(Step* step) const {
  if (step->cancellation()->IsCancelled()) return absl::CancelledError("the request was cancelled");
  const int64_t deadline_ns = step->slot().context().deadline_ns;
  if (deadline_ns != TESSERA_NO_DEADLINE && MonotonicNs() >= deadline_ns) {
    return absl::DeadlineExceededError(
        absl::StrCat(name_, ": the deadline passed while the request waited for a worker"));
  }
  std::vector<tf::Tensor> results(outputs_.size());
  absl::Status status = model_->Run(signature_, step->args(), &results);
  if (!status.ok()) return status;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const std::string difference = Difference(outputs_[i], results[i]);
    if (difference.empty()) continue;
    return absl::InternalError(absl::StrCat(name_, ": the model's output ", outputs_[i].alias, " ", difference));
  }
  step->results() = std::move(results);
  return absl::OkStatus();
}

}  // namespace tessera
