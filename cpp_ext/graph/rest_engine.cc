#include "cpp_ext/graph/rest_engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/rest_call.h"
#include "cpp_ext/graph/rest_state.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

// Longer ones take long to parse and to print.
constexpr size_t kMaxInlineBodyBytes = 32 << 10;
constexpr absl::string_view kStopping = "rest: the server is stopping";

uint64_t Refuse(Code code, absl::string_view message, RestAnswer* answer) {
  answer->code = static_cast<int>(code);
  answer->body = JsonErrorBody(message);
  return 0;
}

}  // namespace

RestState::RestState(std::shared_ptr<Predictor> predictor, const RestOptions& options, int fd)
    : predictor_(std::move(predictor)), options_(options), fd_(fd), pool_(options.threads) {}

RestState::~RestState() {
  close(fd_);
  // Not here: this may be the stack of a call, and the predictor waits for its calls.
  WorkerPool::Background().Submit([predictor = std::move(predictor_)]() mutable { predictor.reset(); });
}

RequestStats* RestState::StatsOf(const std::string& model) const {
  const std::shared_ptr<const Snapshot> snapshot = predictor_->snapshot();
  const std::vector<ServedModel>& models = snapshot->models();
  const auto found =
      std::lower_bound(models.begin(), models.end(), model,
                       [](const ServedModel& served, const std::string& name) { return served.name < name; });
  const bool served = found != models.end() && found->name == model && found->stats != nullptr;
  return served ? found->stats : predictor_->request_stats().unknown();
}

RestCost* RestState::CostOf(const RequestStats* stats, Method method) {
  std::lock_guard<std::mutex> lock(mu_);
  return &costs_[stats][static_cast<size_t>(method)];
}

bool RestState::Enter() {
  if (in_flight_.fetch_add(1, std::memory_order_relaxed) < options_.max_in_flight) return true;
  Leave();
  return false;
}

uint64_t RestState::Register(std::weak_ptr<RestCall> call) {
  std::lock_guard<std::mutex> lock(mu_);
  calls_[++last_token_] = std::move(call);
  return last_token_;
}

void RestState::Unregister(uint64_t token) {
  std::lock_guard<std::mutex> lock(mu_);
  calls_.erase(token);
}

std::shared_ptr<RestCall> RestState::Find(uint64_t token) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = calls_.find(token);
  return found == calls_.end() ? nullptr : found->second.lock();
}

std::vector<std::shared_ptr<RestCall>> RestState::All() {
  std::vector<std::shared_ptr<RestCall>> all;
  std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [token, call] : calls_) {
    if (auto held = call.lock()) all.push_back(std::move(held));
  }
  return all;
}

void RestState::Post(RestAnswer answer) {
  std::lock_guard<std::mutex> lock(mu_);
  calls_.erase(answer.token);
  answers_.push_back(std::move(answer));
  if (answers_.size() > 1) return;  // it is readable already
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
}

std::vector<RestAnswer> RestState::Take() {
  std::lock_guard<std::mutex> lock(mu_);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof(count));
  return std::exchange(answers_, {});
}

absl::StatusOr<std::unique_ptr<RestEngine>> RestEngine::Make(std::shared_ptr<Predictor> predictor,
                                                             const RestOptions& options) {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return absl::InternalError("rest: no eventfd can be made; the process has too many open files");
  std::unique_ptr<RestEngine> self(new RestEngine);
  self->state_ = std::make_shared<RestState>(std::move(predictor), options, fd);
  return self;
}

RestEngine::~RestEngine() { Stop(); }

uint64_t RestEngine::Start(RestRequest request, RestAnswer* answer) {
  if (state_->closed()) return Refuse(Code::kUnavailable, kStopping, answer);
  if (!state_->Enter()) {
    const int code = static_cast<int>(Code::kResourceExhausted);
    state_->StatsOf(request.model)->Record(request.method, Entrypoint::kRest, code, {}, 0);
    return Refuse(Code::kResourceExhausted,
                  absl::StrCat("rest: ", state_->options().max_in_flight,
                               " requests are in flight, which is the limit; retry later"),
                  answer);
  }
  const bool small = request.body.size() <= kMaxInlineBodyBytes;
  const auto call = std::make_shared<RestCall>(state_, std::move(request));
  if (small && call->cost().expected_ns() <= state_->options().inline_budget_ns) {
    call->Run();
    if (call->TakeAnswer(answer)) return 0;
    const uint64_t token = state_->Register(call);
    if (call->Detach(token, answer)) return token;
    state_->Unregister(token);
    return 0;
  }
  const uint64_t token = state_->Register(call);
  call->RunLater(token);
  return token;
}

void RestEngine::Cancel(uint64_t token) {
  if (const auto call = state_->Find(token)) call->Cancel();
}

std::vector<RestAnswer> RestEngine::Take() { return state_->Take(); }
int RestEngine::fd() const { return state_->fd(); }
size_t RestEngine::in_flight() const { return state_->in_flight(); }

void RestEngine::Stop() {
  state_->Close();
  for (const auto& call : state_->All()) call->Cancel();
  state_->pool().Stop();
}

}  // namespace tessera
