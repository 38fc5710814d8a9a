#include "cpp_ext/graph/predictor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/graph/predict_call.h"

namespace tessera {

namespace {

// Requests that are ready together share a batch, instead of the first one running alone before the second is read.
const TesseraBurst kBurst = {
    [](void*) { BatchLane::BeginBurst(); },
    [](void*) { return BatchLane::BurstPending() ? 1 : 0; },
    [](void*) { BatchLane::EndBurst(); },
};

}  // namespace

Predictor::Predictor(int64_t max_in_flight, bool tensor_content)
    : max_in_flight_(max_in_flight),
      tensor_content_(tensor_content),
      handler_{TESSERA_ABI_VERSION, this, &Predictor::Handle, &kBurst} {}

Predictor::~Predictor() {
  std::unique_lock<std::mutex> lock(mu_);
  closing_ = true;
  all_free_.wait(lock, [this] { return free_.size() == calls_.size(); });
}

void Predictor::Handle(void* context, const TesseraCallApi* api, TesseraCall* call) {
  auto* self = static_cast<Predictor*>(context);
  self->requests_.fetch_add(1, std::memory_order_relaxed);
  if (self->in_flight_.fetch_add(1, std::memory_order_relaxed) >= self->max_in_flight_) {
    self->in_flight_.fetch_sub(1, std::memory_order_relaxed);
    const absl::Status status = absl::ResourceExhaustedError(
        absl::StrCat("predict: ", self->max_in_flight_, " requests are in flight, which is the limit; retry later"));
    self->errors_[static_cast<size_t>(status.code())].fetch_add(1, std::memory_order_relaxed);
    return api->finish(call, static_cast<int>(status.code()), status.message().data(), status.message().size(), nullptr,
                       0, nullptr, nullptr);
  }
  self->TakeCall()->Start(api, call);
}

PredictCall* Predictor::TakeCall() {
  std::lock_guard<std::mutex> lock(mu_);
  if (free_.empty()) {
    calls_.push_back(std::make_unique<PredictCall>(this));
    return calls_.back().get();
  }
  PredictCall* call = free_.back();
  free_.pop_back();
  return call;
}

void Predictor::GiveBack(PredictCall* call) {
  std::lock_guard<std::mutex> lock(mu_);
  free_.push_back(call);
  if (closing_) all_free_.notify_all();
}

PredictorStats Predictor::stats() const {
  PredictorStats stats;
  stats.requests = requests_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < errors_.size(); ++i) stats.errors[i] = errors_[i].load(std::memory_order_relaxed);
  stats.in_flight = in_flight_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace tessera
