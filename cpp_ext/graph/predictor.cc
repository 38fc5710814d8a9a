#include "cpp_ext/graph/predictor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/graph/request_call.h"

namespace tessera {

namespace {

// Requests that are ready together share a batch, instead of the first one running alone before the second is read.
const TesseraBurst kBurst = {
    [](void*) { BatchLane::BeginBurst(); },
    [](void*) { return BatchLane::BurstPending() ? 1 : 0; },
    [](void*) { BatchLane::EndBurst(); },
};

}  // namespace

Predictor::Predictor(const PredictorOptions& options) : options_(options) {
  for (size_t i = 0; i < methods_.size(); ++i) {
    MethodHandler& method = methods_[i];
    method = {{TESSERA_ABI_VERSION, &method, &Predictor::Handle, &kBurst}, this, static_cast<Method>(i)};
  }
}

Predictor::~Predictor() {
  std::unique_lock<std::mutex> lock(mu_);
  closing_ = true;
  all_free_.wait(lock, [this] { return free_.size() == calls_.size(); });
}

void Predictor::Handle(void* context, const TesseraCallApi* api, TesseraCall* call) {
  const auto* method = static_cast<const MethodHandler*>(context);
  Predictor* self = method->predictor;
  self->requests_.fetch_add(1, std::memory_order_relaxed);
  if (self->in_flight_.fetch_add(1, std::memory_order_relaxed) >= self->options_.max_in_flight) {
    return self->Refuse(method->method, api, call);
  }
  self->TakeCall()->Start(method->method, api, call);
}

void Predictor::Refuse(Method method, const TesseraCallApi* api, TesseraCall* call) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const absl::Status status = absl::ResourceExhaustedError(
      absl::StrCat("predict: ", options_.max_in_flight, " requests are in flight, which is the limit; retry later"));
  const int code = static_cast<int>(status.code());
  errors_[static_cast<size_t>(code)].fetch_add(1, std::memory_order_relaxed);
  const Entrypoint entrypoint = LocalCall::EntrypointOf(api, call);
  // Which model it was for is not read: refusing has to be cheap.
  if (entrypoint != Entrypoint::kInternal) registry_.unknown()->Record(method, entrypoint, code, {}, 0);
  api->push_back(call, kPushBackMs);
  api->finish(call, code, status.message().data(), status.message().size(), nullptr, 0, nullptr, nullptr);
}

RequestCall* Predictor::TakeCall() {
  std::lock_guard<std::mutex> lock(mu_);
  if (free_.empty()) {
    calls_.push_back(std::make_unique<RequestCall>(this));
    return calls_.back().get();
  }
  RequestCall* call = free_.back();
  free_.pop_back();
  return call;
}

void Predictor::GiveBack(RequestCall* call) {
  std::lock_guard<std::mutex> lock(mu_);
  free_.push_back(call);
  if (closing_) all_free_.notify_all();
}

PredictorStats Predictor::stats() const {
  PredictorStats stats;
  stats.requests = requests_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < errors_.size(); ++i) stats.errors[i] = errors_[i].load(std::memory_order_relaxed);
  stats.in_flight = in_flight_.load(std::memory_order_relaxed);
  stats.run_again = run_again_.load(std::memory_order_relaxed);
  stats.awaiting_newer = static_cast<int64_t>(restarts_.waiting());
  return stats;
}

}  // namespace tessera
