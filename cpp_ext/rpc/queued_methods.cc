#include "cpp_ext/rpc/queued_methods.h"

#include <chrono>
#include <utility>

#include "cpp_ext/base/clock.h"

namespace tessera {
namespace {

void FinishWithResponse(const TesseraCallApi* api, TesseraCall* call, std::string response) {
  auto* owned = new std::string(std::move(response));
  api->finish(
      call, 0, nullptr, 0, reinterpret_cast<const uint8_t*>(owned->data()), owned->size(),
      [](void* arg) { delete static_cast<std::string*>(arg); }, owned);
}

}  // namespace

QueuedMethods::~QueuedMethods() = default;

const TesseraHandler* QueuedMethods::Add(Answer answer) {
  Method& method = methods_.emplace_back(Method{this, std::move(answer), {}});
  method.handler.abi_version = TESSERA_ABI_VERSION;
  method.handler.context = &method;
  method.handler.handle = [](void* context, const TesseraCallApi* api, TesseraCall* call) {
    const auto* target = static_cast<const Method*>(context);
    target->owner->Enqueue({&target->answer, api, call, {}, {}});
  };
  return &method.handler;
}

StreamHandler* QueuedMethods::AddStream(Answer answer) {
  return &stream_methods_.emplace_back(this, std::move(answer));
}

void QueuedMethods::StreamMethod::OnMessage(ServerStream* stream, std::string_view message) {
  owner->Enqueue({&answer, nullptr, nullptr, Ref<ServerStream>::Share(stream), std::string(message)});
}

void QueuedMethods::Refuse(const Item& item, const Status& status) {
  if (item.stream) return item.stream->Finish(status);
  item.api->finish(item.call, static_cast<int>(status.code()), status.message().data(), status.message().size(),
                   nullptr, 0, nullptr, nullptr);
}

void QueuedMethods::Enqueue(Item item) {
  Status refusal;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      refusal = Status(Code::kUnavailable, "the server is shutting down");
    } else if (queue_.size() >= kMaxQueued) {
      refusal = Status(Code::kResourceExhausted,
                       "too many requests are waiting; the limit is " + std::to_string(kMaxQueued) + ", retry later");
    } else {
      queue_.push_back(std::move(item));
      if (!std::exchange(has_thread_, true)) thread_ = std::thread([this] { Serve(); });
    }
  }
  if (!refusal.ok()) return Refuse(item, refusal);
  changed_.notify_all();
}

void QueuedMethods::Serve() {
  for (;;) {
    Item item;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) {
        thread_ended_ = true;
        changed_.notify_all();
        return;
      }
      item = std::move(queue_.front());
      queue_.pop_front();
    }
    Run(item);
  }
}

void QueuedMethods::Run(const Item& item) {
  std::string_view request = item.message;
  if (!item.stream) {
    if (MonotonicNs() >= item.api->deadline_ns(item.call)) {
      return Refuse(item, Status(Code::kDeadlineExceeded, "the deadline passed while the request was waiting"));
    }
    size_t size;
    const uint8_t* bytes = item.api->request(item.call, &size);
    request = std::string_view(reinterpret_cast<const char*>(bytes), size);
  }
  std::string response;
  const Status status = (*item.answer)(request, &response);
  if (!status.ok()) {
    Refuse(item, status);
  } else if (item.stream) {
    item.stream->Send(std::move(response));
  } else {
    FinishWithResponse(item.api, item.call, std::move(response));
  }
}

bool QueuedMethods::Stop(int64_t timeout_ns) {
  std::deque<Item> left;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    left.swap(queue_);
  }
  changed_.notify_all();
  for (const Item& item : left) Refuse(item, Status(Code::kUnavailable, "the server is shutting down"));
  std::unique_lock<std::mutex> lock(mutex_);
  const bool has_ended =
      !has_thread_ || changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return thread_ended_; });
  lock.unlock();
  if (has_ended && thread_.joinable()) thread_.join();
  return has_ended;
}

}  // namespace tessera
