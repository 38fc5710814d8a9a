#include "cpp_ext/graph/local_call.h"

#include <time.h>

#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace tessera {
namespace {

absl::Duration TimeLeft(int64_t deadline_ns) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::Nanoseconds(deadline_ns) - absl::DurationFromTimespec(now);
}

}  // namespace

const TesseraCallApi LocalCall::kApi = {
    TESSERA_ABI_VERSION,
    [](TesseraCall* call, size_t* size_bytes) {
      *size_bytes = Of(call)->request_.size();
      return reinterpret_cast<const uint8_t*>(Of(call)->request_.data());
    },
    [](TesseraCall* call) { return Of(call)->options_.deadline_ns; },
    [](TesseraCall* call, const char* key, size_t key_size, size_t* value_size) -> const uint8_t* {
      const auto& metadata = Of(call)->options_.metadata;
      const auto found = metadata.find(std::string_view(key, key_size));
      if (found == metadata.end()) return nullptr;
      *value_size = found->second.size();
      return reinterpret_cast<const uint8_t*>(found->second.data());
    },
    [](TesseraCall* call, void (*on_cancel)(void*), void* arg) { Of(call)->NotifyOnCancel(on_cancel, arg); },
    [](TesseraCall*, int64_t) {},  // whoever calls within the process knows what it does
    [](TesseraCall* call, int code, const char* message, size_t message_size, const uint8_t* response,
       size_t response_size, void (*free_response)(void*), void* free_arg) {
      const absl::Status status(static_cast<absl::StatusCode>(code), absl::string_view(message, message_size));
      Of(call)->Finish(status, absl::string_view(reinterpret_cast<const char*>(response), response_size));
      if (free_response != nullptr) free_response(free_arg);
    },
};

LocalCall::LocalCall(std::string request, LocalCallOptions options, Done done)
    : request_(std::move(request)), options_(std::move(options)), done_(std::move(done)) {}

std::shared_ptr<LocalCall> LocalCall::Start(const TesseraHandler* handler, std::string request,
                                            LocalCallOptions options, Done done) {
  std::shared_ptr<LocalCall> call(new LocalCall(std::move(request), std::move(options), std::move(done)));
  call->self_ = call;
  handler->handle(handler->context, &kApi, reinterpret_cast<TesseraCall*>(call.get()));
  return call;
}

absl::Status LocalCall::CallAndWait(const TesseraHandler* handler, std::string request, LocalCallOptions options,
                                    std::string* response) {
  absl::Notification ended;
  absl::Status status;
  const int64_t deadline_ns = options.deadline_ns;
  const std::shared_ptr<LocalCall> call = Start(handler, std::move(request), std::move(options),
                                                [&](const absl::Status& result, absl::string_view message) {
                                                  status = result;
                                                  if (result.ok()) response->assign(message.data(), message.size());
                                                  ended.Notify();
                                                });
  if (deadline_ns != TESSERA_NO_DEADLINE && !ended.WaitForNotificationWithTimeout(TimeLeft(deadline_ns))) {
    call->Cancel();
  }
  ended.WaitForNotification();
  return status;
}

void LocalCall::Cancel() {
  std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
  if (on_cancel_ != nullptr) std::exchange(on_cancel_, nullptr)(on_cancel_arg_);
}

void LocalCall::NotifyOnCancel(void (*on_cancel)(void*), void* arg) {
  std::lock_guard<std::mutex> lock(mu_);
  if (cancelled_) return on_cancel(arg);
  on_cancel_ = on_cancel;
  on_cancel_arg_ = arg;
}

void LocalCall::Finish(const absl::Status& status, absl::string_view response) {
  const std::shared_ptr<LocalCall> keep = std::move(self_);
  {
    std::lock_guard<std::mutex> lock(mu_);  // once this is released, no callback runs and none will
    on_cancel_ = nullptr;
  }
  done_(status, status.ok() ? response : absl::string_view());
}

}  // namespace tessera
