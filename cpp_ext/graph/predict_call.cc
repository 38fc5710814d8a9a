#include "cpp_ext/graph/predict_call.h"

#include <stdlib.h>
#include <time.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/predictor.h"
#include "cpp_ext/graph/tensor_decode.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

constexpr absl::string_view kDefaultSignature = "serving_default";

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

absl::string_view SignatureName(const PredictRequestView& request) {
  return request.signature.empty() ? kDefaultSignature : request.signature;
}

}  // namespace

void PredictCall::Start(const TesseraCallApi* api, TesseraCall* call) {
  api_ = api;
  call_ = call;
  references_.store(1, std::memory_order_relaxed);
  const absl::Status status = Prepare();
  if (!status.ok()) return Finish(status, {});
  if (runnable_->cancellable()) api_->notify_on_cancel(call_, &PredictCall::OnCancel, this);
  step_.set_done(&PredictCall::OnStepDone, this);
  Pin keep = pin_;  // the request may end, and drop its own pin, while the
                    // executor is still on this stack
  runnable_->RunAsync(&step_);
  ReleasePin(std::move(keep));
}

absl::Status PredictCall::Prepare() {
  deadline_ns_ = api_->deadline_ns(call_);
  if (deadline_ns_ != TESSERA_NO_DEADLINE && NowNs() >= deadline_ns_) {
    return absl::DeadlineExceededError("the deadline had passed before the request was started");
  }
  size_t size_bytes = 0;
  const uint8_t* message = api_->request(call_, &size_bytes);
  absl::Status status =
      ParsePredictRequest(absl::string_view(reinterpret_cast<const char*>(message), size_bytes), &request_);
  if (!status.ok()) return status;
  if (!request_.has_model_spec) return absl::InvalidArgumentError("Missing ModelSpec");
  if (request_.model.empty()) return absl::InvalidArgumentError("ModelSpec has no name specified.");
  status = predictor_->snapshot_.Resolve(request_, &pin_);
  if (!status.ok()) return status;
  pin_->CountRequest();
  runnable_ = pin_->graph().Find(SignatureName(request_));
  if (runnable_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("Serving signature key \"", SignatureName(request_), "\" not found."));
  }
  if (runnable_->mode() == RunMode::kRefused) return runnable_->reason();
  const Signature& signature = runnable_->signature();
  step_.Reset(signature.inputs().size(), signature.fetches().size());
  status = DecodeInputs(signature);
  if (status.ok()) status = signature.SelectOutputs(request_.output_filter, &outputs_);
  if (!status.ok() || runnable_->mode() != RunMode::kAsync) return status;
  if (!step_.slot().valid())
    return absl::ResourceExhaustedError("too many requests with lookups or batches are in flight");
  StepContext& context = step_.slot().context();
  context.fanout = pin_->fanout();
  context.route = pin_->route();
  context.deadline_ns = deadline_ns_;
  step_.set_pin(pin_);
  return status;
}

absl::Status PredictCall::DecodeInputs(const Signature& signature) {
  absl::InlinedVector<absl::string_view, 16> aliases;
  absl::InlinedVector<int, 16> positions;
  bool all_known = true;
  for (const PredictRequestView::Input& input : request_.inputs) {
    aliases.push_back(input.alias);
    positions.push_back(signature.FindInput(input.alias));
    all_known &= positions.back() >= 0;
  }
  if (!all_known || aliases.size() != signature.inputs().size()) {
    absl::Status status = signature.CheckInputs(aliases, positions, absl::MakeSpan(step_.args()));
    if (!status.ok()) return status;
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    absl::Status status = DecodeTensor(request_.inputs[i].tensor, &step_.args()[static_cast<size_t>(positions[i])]);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("tensor parsing error: ", aliases[i], ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

void PredictCall::OnCancel(void* arg) {
  // Not here: cancelling may end the step, and the call must not be finished on
  // this stack.
  auto* self = static_cast<PredictCall*>(arg);
  self->references_.fetch_add(1, std::memory_order_relaxed);
  WorkerPool::Background().Submit([self] {
    self->step_.Cancel();
    self->Unref();
  });
}

void PredictCall::OnStepDone(void* arg, absl::Status status) {
  auto* self = static_cast<PredictCall*>(arg);
  if (self->runnable_->mode() == RunMode::kAsync) {
    std::string message;
    const int code = self->step_.slot().context().error.Take(&message);
    // Executors may report another code than the kernel that failed did.
    if (code != 0 && !status.ok()) status = absl::Status(static_cast<absl::StatusCode>(code), message);
  }
  if (absl::IsCancelled(status) && NowNs() >= self->deadline_ns_) {
    status = absl::DeadlineExceededError("the deadline passed while the request ran");
  }
  EncodedResponse response;
  if (status.ok()) status = self->Encode(&response);
  self->Finish(status, response);
}

absl::Status PredictCall::Encode(EncodedResponse* response) {
  absl::InlinedVector<PredictOutput, 4> outputs;
  for (const SignatureOutput* output : outputs_) {
    const auto& tensors = output->fetch >= 0 ? step_.results() : step_.args();
    outputs.push_back(
        {output->alias, &tensors[static_cast<size_t>(output->fetch >= 0 ? output->fetch : output->input)]});
  }
  return EncodePredictResponse(outputs, request_.model, pin_->version(), SignatureName(request_),
                               predictor_->tensor_content_, response);
}

void PredictCall::Finish(const absl::Status& status, EncodedResponse response) {
  const auto code = static_cast<size_t>(status.code());
  if (!status.ok()) predictor_->errors_[code < predictor_->errors_.size() ? code : 2].fetch_add(1);
  predictor_->in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const std::string message = status.ok() ? std::string() : ToUtf8(status.message());
  api_->finish(call_, static_cast<int>(code), message.data(), message.size(), response.data, response.size_bytes, &free,
               response.data);
  Unref();
}

void PredictCall::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  step_.Clear();
  request_.Clear();
  outputs_.clear();
  runnable_ = nullptr;
  ReleasePin(std::move(pin_));
  pin_ = nullptr;
  predictor_->GiveBack(this);
}

}  // namespace tessera
