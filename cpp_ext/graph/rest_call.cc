#include "cpp_ext/graph/rest_call.h"

#include <time.h>

#include <utility>

#include "cpp_ext/graph/json_encode.h"
#include "cpp_ext/graph/json_example.h"
#include "cpp_ext/graph/json_signature.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/json_wire.h"
#include "cpp_ext/graph/rest_state.h"
#include "cpp_ext/graph/utf8.h"

namespace tessera {
namespace {

// A version can be gone when the call arrives; the newest one is asked for again this often.
constexpr int kMaxAttempts = 3;
// Larger answers are printed on the pool and not on the thread that ends the call, which others may wait for.
constexpr size_t kMaxPrintedAtOnceBytes = 64 << 10;

constexpr uint32_t kRequestModelSpec = 1;
constexpr uint32_t kSpecName = 1;
constexpr uint32_t kSpecVersion = 2;
constexpr uint32_t kSpecSignature = 3;
constexpr uint32_t kSpecLabel = 4;
constexpr uint32_t kWrappedValue = 1;

// Set on threads that do nothing but REST.
thread_local bool on_rest_thread = false;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

Status FromAbsl(const absl::Status& status) {
  return Status(static_cast<Code>(status.code()), std::string(status.message()));
}

void AppendModelSpec(const RestRequest& request, std::optional<int64_t> version, std::string_view signature,
                     std::string* wire) {
  std::string spec;
  AppendDelimited(kSpecName, request.model, &spec);
  if (version.has_value()) {
    std::string wrapped;
    AppendVarintField(kWrappedValue, static_cast<uint64_t>(*version), &wrapped);
    AppendDelimited(kSpecVersion, wrapped, &spec);
  } else if (request.label.has_value()) {
    AppendDelimited(kSpecLabel, *request.label, &spec);
  }
  if (!signature.empty()) AppendDelimited(kSpecSignature, signature, &spec);
  AppendDelimited(kRequestModelSpec, spec, wire);
}

}  // namespace

RestCall::RestCall(std::shared_ptr<RestState> state, RestRequest request)
    : state_(std::move(state)),
      request_(std::move(request)),
      start_ns_(NowNs()),
      stats_(state_->StatsOf(request_.model)),
      cost_(state_->CostOf(stats_, request_.method)) {}

void RestCall::Run() {
  const int64_t begin_ns = NowNs();
  Send();
  cost_->Observe(NowNs() - begin_ns);
}

void RestCall::RunLater(uint64_t token) {
  token_ = token;
  phase_.store(Phase::kDetached, std::memory_order_release);
  const auto run = [self = shared_from_this()] {
    on_rest_thread = true;
    self->Run();
  };
  if (!state_->pool().Submit(run)) Finish(Status(Code::kUnavailable, "rest: the server is stopping"), {});
}

bool RestCall::TakeAnswer(RestAnswer* answer) {
  if (phase_.load(std::memory_order_acquire) != Phase::kEnded) return false;
  *answer = std::move(answer_);
  return true;
}

bool RestCall::Detach(uint64_t token, RestAnswer* answer) {
  token_ = token;
  Phase attached = Phase::kAttached;
  if (phase_.compare_exchange_strong(attached, Phase::kDetached, std::memory_order_acq_rel)) return true;
  *answer = std::move(answer_);
  return false;
}

void RestCall::Cancel() {
  std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
  if (call_ != nullptr) call_->Cancel();
}

bool RestCall::IsCancelled() {
  std::lock_guard<std::mutex> lock(mu_);
  return cancelled_;
}

Status RestCall::Encode() {
  wire_.clear();
  rapidjson::Document document;
  std::string_view signature;
  Status status = ParseJsonObject(request_.body, &document);
  if (status.ok()) status = JsonSignatureName(document, &signature);
  if (!status.ok()) return status;
  if (request_.method == Method::kPredict) return EncodePredict(document, signature);
  AppendModelSpec(request_, request_.version, signature, &wire_);
  return AppendExamples(document, &wire_);
}

absl::Status RestCall::Resolve(Pin* pin) const {
  RequestView view;
  view.has_model_spec = true;
  view.model = request_.model;
  if (request_.version.has_value()) {
    view.choice = RequestView::Choice::kVersion;
    view.version = *request_.version;
  } else if (request_.label.has_value()) {
    view.choice = RequestView::Choice::kLabel;
    view.label = *request_.label;
  }
  RequestStats* stats = nullptr;
  const auto metadata = [this](absl::string_view key) {
    const auto found = request_.metadata.find(key);
    return found == request_.metadata.end() ? absl::string_view() : absl::string_view(found->second);
  };
  return state_->predictor().snapshot()->Resolve(view, metadata, pin, &stats);
}

Status RestCall::EncodePredict(const rapidjson::Document& document, absl::string_view signature) {
  const absl::Status resolved = Resolve(&pin_);
  if (!resolved.ok()) return FromAbsl(resolved);
  const absl::string_view name = signature.empty() ? kDefaultSignature : signature;
  std::vector<JsonInput> inputs;
  if (!FindSignatureInputs(pin_->graph().signature_defs(), name, &inputs)) {
    return JsonError("Serving signature name: \"" + std::string(name) + "\" not found in signature def");
  }
  // What was decoded for this version must run on this version.
  AppendModelSpec(request_, pin_->version(), signature, &wire_);
  return AppendPredictInputs(document, inputs, signature, &format_, &wire_);
}

void RestCall::Send() {
  ++attempts_;
  const Status status = IsCancelled() ? Status(Code::kCancelled, "the client has gone") : Encode();
  if (!status.ok()) return Finish(status, {});
  LocalCallOptions options;
  options.deadline_ns = request_.deadline_ns;
  options.metadata = request_.metadata;
  options.entrypoint = Entrypoint::kRest;
  counted_ = true;
  auto call = LocalCall::Start(state_->predictor().handler(request_.method), std::move(wire_), std::move(options),
                               [self = shared_from_this()](const absl::Status& result, absl::string_view response) {
                                 self->OnDone(result, response);
                               });
  std::lock_guard<std::mutex> lock(mu_);
  if (ended_) return;
  call_ = std::move(call);
  if (cancelled_) call_->Cancel();
}

void RestCall::OnDone(const absl::Status& status, absl::string_view response) {
  if (VersionHasGone(status)) {
    // Not here: this is the stack of the handler.
    if (state_->pool().Submit([self = shared_from_this()] { self->Send(); })) return;
  }
  if (!status.ok()) return Finish(FromAbsl(status), {});
  const bool later = response.size() > kMaxPrintedAtOnceBytes && !on_rest_thread;
  if (!later || !state_->pool().Submit([self = shared_from_this(), copy = std::string(response)] {
        on_rest_thread = true;
        self->Answer(copy);
      })) {
    Answer(response);
  }
}

bool RestCall::VersionHasGone(const absl::Status& status) const {
  if (!absl::IsNotFound(status) || request_.version.has_value() || pin_ == nullptr) return false;
  Pin now;
  return attempts_ < kMaxAttempts && Resolve(&now).ok() && now != pin_;
}

void RestCall::Answer(absl::string_view response) {
  std::string body;
  Status status;
  if (request_.method == Method::kPredict) {
    status = PredictResponseToJson(response, format_, &body);
  } else if (request_.method == Method::kClassify) {
    status = ClassificationResponseToJson(response, &body);
  } else {
    status = RegressionResponseToJson(response, &body);
  }
  Finish(status, std::move(body));
}

void RestCall::Finish(const Status& status, std::string body) {
  const int code = static_cast<int>(status.code());
  if (!counted_) stats_->Record(request_.method, Entrypoint::kRest, code, {start_ns_, 0, 0, NowNs()}, 0);
  answer_.code = code;
  answer_.body = status.ok() ? std::move(body) : JsonErrorBody(ToUtf8(status.message()));
  ReleasePin(std::move(pin_));
  std::shared_ptr<LocalCall> call;
  {
    std::lock_guard<std::mutex> lock(mu_);
    ended_ = true;
    call = std::move(call_);
  }
  state_->Leave();
  if (phase_.exchange(Phase::kEnded, std::memory_order_acq_rel) != Phase::kDetached) return;
  answer_.token = token_;
  state_->Post(std::move(answer_));
}

}  // namespace tessera
