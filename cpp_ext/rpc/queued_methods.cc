#include "cpp_ext/rpc/queued_methods.h"

#include <utility>

#include "cpp_ext/base/clock.h"

namespace tessera {
namespace {

void FinishWithError(const TesseraCallApi* api, TesseraCall* call, const Status& status) {
  api->finish(call, static_cast<int>(status.code()), status.message().data(), status.message().size(), nullptr, 0,
              nullptr, nullptr);
}

void FinishWithResponse(const TesseraCallApi* api, TesseraCall* call, std::string response) {
  auto* owned = new std::string(std::move(response));
  api->finish(
      call, 0, nullptr, 0, reinterpret_cast<const uint8_t*>(owned->data()), owned->size(),
      [](void* arg) { delete static_cast<std::string*>(arg); }, owned);
}

}  // namespace

QueuedMethods::~QueuedMethods() { Stop(); }

const TesseraHandler* QueuedMethods::Add(Answer answer) {
  Method& method = methods_.emplace_back(Method{this, std::move(answer), {}});
  method.handler.abi_version = TESSERA_ABI_VERSION;
  method.handler.context = &method;
  method.handler.handle = [](void* context, const TesseraCallApi* api, TesseraCall* call) {
    const auto* target = static_cast<const Method*>(context);
    target->owner->Enqueue(target, api, call);
  };
  return &method.handler;
}

void QueuedMethods::Enqueue(const Method* method, const TesseraCallApi* api, TesseraCall* call) {
  Status refusal;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      refusal = Status(Code::kUnavailable, "the server is shutting down");
    } else if (queue_.size() >= kMaxQueued) {
      refusal = Status(Code::kResourceExhausted,
                       "too many requests are waiting; the limit is " + std::to_string(kMaxQueued) + ", retry later");
    } else {
      queue_.push_back({method, api, call});
      if (!thread_.joinable()) thread_ = std::thread([this] { Serve(); });
    }
  }
  if (!refusal.ok()) return FinishWithError(api, call, refusal);
  changed_.notify_one();
}

void QueuedMethods::Serve() {
  for (;;) {
    Item item;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      item = queue_.front();
      queue_.pop_front();
    }
    if (MonotonicNs() >= item.api->deadline_ns(item.call)) {
      FinishWithError(item.api, item.call,
                      Status(Code::kDeadlineExceeded, "the deadline passed while the request was waiting"));
      continue;
    }
    size_t size;
    const uint8_t* bytes = item.api->request(item.call, &size);
    std::string response;
    const Status status = item.method->answer(std::string_view(reinterpret_cast<const char*>(bytes), size), &response);
    if (status.ok()) {
      FinishWithResponse(item.api, item.call, std::move(response));
    } else {
      FinishWithError(item.api, item.call, status);
    }
  }
}

void QueuedMethods::Stop() {
  std::deque<Item> left;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    left.swap(queue_);
  }
  changed_.notify_all();
  for (const Item& item : left) {
    FinishWithError(item.api, item.call, Status(Code::kUnavailable, "the server is shutting down"));
  }
  if (thread_.joinable()) thread_.join();
}

}  // namespace tessera
