#include "cpp_ext/graph/request_call.h"

#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/predictor.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

// For a newer placement: loading the graphs of another version takes a while.
constexpr int64_t kLongestAwaitNs = 10'000'000'000;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

}  // namespace

RequestCall::RequestCall(Predictor* predictor) : predictor_(predictor), work_(predictor->options_.answers) {}

void RequestCall::Start(Method method, const TesseraCallApi* api, TesseraCall* call) {
  method_ = method;
  api_ = api;
  call_ = call;
  references_.store(1, std::memory_order_relaxed);
  runs_again_ = 0;
  cancelled_.store(false, std::memory_order_relaxed);
  times_ = RequestTimes();
  times_.start_ns = NowNs();
  const absl::Status status = Prepare();
  if (!status.ok()) return Finish(status, {});
  if (work_.cancellable()) api_->notify_on_cancel(call_, &RequestCall::OnCancel, this);
  step_.set_done(&RequestCall::OnStepDone, this);
  times_.run_ns = NowNs();
  Run();
}

absl::Status RequestCall::Prepare() {
  entrypoint_ = LocalCall::EntrypointOf(api_, call_);
  stats_ = predictor_->registry_.unknown();
  deadline_ns_ = api_->deadline_ns(call_);
  size_t size_bytes = 0;
  const uint8_t* message = api_->request(call_, &size_bytes);
  message_ = absl::string_view(reinterpret_cast<const char*>(message), size_bytes);
  absl::Status status = ParseRequest(method_, message_, &request_);
  if (status.ok()) status = Resolve();
  if (!status.ok()) return status;
  if (deadline_ns_ != TESSERA_NO_DEADLINE && times_.start_ns >= deadline_ns_) {
    return absl::DeadlineExceededError("the deadline had passed before the request was started");
  }
  status = work_.Prepare(method_, request_, pin_->graph(), &step_);
  return status.ok() ? PrepareStep() : status;
}

absl::Status RequestCall::Resolve() {
  // A MultiInferenceRequest has its model spec in its first task, and TensorFlow Serving an empty one without.
  if (!request_.has_model_spec && method_ != Method::kMultiInference) {
    return absl::InvalidArgumentError("Missing ModelSpec");
  }
  if (request_.model.empty()) return absl::InvalidArgumentError("ModelSpec has no name specified.");
  return predictor_->snapshot_.Resolve(
      request_, [this](absl::string_view key) { return Metadata(key); }, &pin_, &stats_);
}

absl::string_view RequestCall::Metadata(absl::string_view key) const {
  size_t size_bytes = 0;
  const uint8_t* value = api_->metadata(call_, key.data(), key.size(), &size_bytes);
  if (value == nullptr) return {};
  return absl::string_view(reinterpret_cast<const char*>(value), size_bytes);
}

absl::Status RequestCall::PrepareStep() {
  if (!work_.needs_context()) return absl::OkStatus();
  if (!step_.slot().valid()) {
    return absl::ResourceExhaustedError("too many requests with lookups or batches are in flight");
  }
  StepContext& context = step_.slot().context();
  context.fanout = pin_->fanout();
  context.route = pin_->route();
  context.deadline_ns = deadline_ns_;
  step_.set_pin(pin_);
  return absl::OkStatus();
}

void RequestCall::Run() {
  Pin keep = pin_;  // the request may end, and drop its own pin, while the
                    // executor is still on this stack
  work_.runnable()->RunAsync(&step_);
  ReleasePin(std::move(keep));
}

void RequestCall::OnCancel(void* arg) {
  // Not here: cancelling may end the step, and the call must not be finished on
  // this stack.
  auto* self = static_cast<RequestCall*>(arg);
  self->references_.fetch_add(1, std::memory_order_relaxed);
  WorkerPool::Background().Submit([self] {
    self->cancelled_.store(true);  // first: a run that begins again looks here after it has a new cancellation
    self->step_.Cancel();
    self->predictor_->restarts_.Wake(self);
    self->Unref();
  });
}

void RequestCall::OnStepDone(void* arg, absl::Status status) {
  auto* self = static_cast<RequestCall*>(arg);
  if (self->work_.runnable()->mode() == RunMode::kAsync) {
    std::string message;
    const int code = self->step_.slot().context().error.Take(&message);
    // Executors may report another code than the kernel that failed did.
    if (code != 0 && !status.ok()) status = absl::Status(static_cast<absl::StatusCode>(code), message);
  }
  if (status.ok() && self->work_.Advance(&self->step_)) {
    if (!self->step_.cancellation()->IsCancelled()) return self->Run();
    status = absl::CancelledError("the request was cancelled");
  }
  if (self->IsOutdated(status)) return self->AwaitNewer(std::move(status));
  self->times_.encode_ns = NowNs();
  if (absl::IsCancelled(status) && self->times_.encode_ns >= self->deadline_ns_) {
    status = absl::DeadlineExceededError("the deadline passed while the request ran");
  }
  EncodedResponse response;
  if (status.ok()) status = self->work_.Encode(self->request_, self->pin_->version(), &self->step_, &response);
  self->Finish(status, response);
}

bool RequestCall::IsOutdated(const absl::Status& status) const {
  return absl::IsUnavailable(status) && runs_again_ < Step::kMaxAgain && pin_->route() != nullptr &&
         pin_->fanout()->newer_epoch(pin_->route()) != 0 && NowNs() < deadline_ns_;
}

void RequestCall::AwaitNewer(absl::Status status) {
  outdated_ = std::move(status);
  await_until_ns_ = std::min(deadline_ns_, NowNs() + kLongestAwaitNs);
  work_.Clear();
  step_.BeginAgain();
  ReleasePin(std::move(pin_));  // servers may be waiting for the last request of the old placement
  pin_ = nullptr;
  // At once for the first time, but not on the stack of the run that has just ended.
  predictor_->restarts_.Wait(this, Restarts::kNever, await_until_ns_);
}

void RequestCall::OnWoken() {
  const uint64_t seen = predictor_->restarts_.changes();
  absl::Status status = cancelled_.load() ? absl::CancelledError("the request was cancelled") : Resolve();
  if (!status.ok()) return Finish(status, {});
  if (pin_->route() != nullptr && pin_->fanout()->newer_epoch(pin_->route()) != 0) {
    ReleasePin(std::move(pin_));
    pin_ = nullptr;
    const int64_t now_ns = NowNs();
    if (now_ns < await_until_ns_) return predictor_->restarts_.Wait(this, seen, await_until_ns_);
    if (now_ns < deadline_ns_) return Finish(outdated_, {});
    return Finish(absl::DeadlineExceededError(absl::StrCat(
                      "the deadline passed while a newer placement was awaited after: ", outdated_.message())),
                  {});
  }
  ++runs_again_;
  predictor_->run_again_.fetch_add(1, std::memory_order_relaxed);
  status = work_.Prepare(method_, request_, pin_->graph(), &step_);
  if (status.ok()) status = PrepareStep();
  if (status.ok() && cancelled_.load()) status = absl::CancelledError("the request was cancelled");
  if (!status.ok()) return Finish(status, {});
  times_.run_ns = NowNs();
  Run();
}

void RequestCall::Finish(const absl::Status& status, EncodedResponse response) {
  if (pin_ != nullptr) pin_->CountRequest();
  if (entrypoint_ != Entrypoint::kInternal) Observe(status, response);
  const auto code = static_cast<size_t>(status.code());
  if (!status.ok()) predictor_->errors_[code < predictor_->errors_.size() ? code : 2].fetch_add(1);
  predictor_->in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const std::string message = status.ok() ? std::string() : ToUtf8(status.message());
  if (absl::IsResourceExhausted(status)) api_->push_back(call_, Predictor::kPushBackMs);
  api_->finish(call_, static_cast<int>(code), message.data(), message.size(), response.data, response.size_bytes, &free,
               response.data);
  Unref();
}

void RequestCall::Observe(const absl::Status& status, const EncodedResponse& response) {
  times_.end_ns = NowNs();
  stats_->Record(method_, entrypoint_, static_cast<int>(status.code()), times_,
                 times_.encode_ns != 0 ? work_.examples() : 0);
  if (pin_ == nullptr || pin_->hook() == nullptr) return;
  pin_->hook()->OnAnswer({method_, pin_.get(), message_, &status,
                          absl::string_view(reinterpret_cast<const char*>(response.data), response.size_bytes)});
}

void RequestCall::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  step_.Clear();
  request_.Clear();
  work_.Clear();
  outdated_ = absl::OkStatus();
  ReleasePin(std::move(pin_));
  pin_ = nullptr;
  predictor_->GiveBack(this);
}

}  // namespace tessera
