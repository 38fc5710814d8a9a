#include "cpp_ext/rpc/server_call.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <utility>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/transport.h"

// The C name under which handlers know a call; it is the slot.
struct TesseraCall {};

namespace tessera {
namespace {

constexpr size_t kMaxStatusMessageBytes = 1024;
constexpr char kTruncated[] = "...TRUNCATED";

}  // namespace

std::string StatusMessage(const char* text, size_t size) {
  if (size <= kMaxStatusMessageBytes) return std::string(text, size);
  // Not in the middle of a UTF-8 sequence.
  size_t end = kMaxStatusMessageBytes - (sizeof(kTruncated) - 1);
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text, end) + kTruncated;
}

class CallSlot final : public TesseraCall, public WaitingCall {
 public:
  explicit CallSlot(MethodQueue* home) : home_(home), call_tag_(this), done_tag_(this) {}

  void Request() {
    home_->counters->open.Add();
    context_.emplace();
    responder_.emplace(&*context_);
    done_ = !home_->traits.cancellable;
    if (home_->traits.cancellable) context_->AsyncNotifyWhenDone(&done_tag_);
    home_->service->Request(home_->index, &*context_, &request_, &*responder_, home_->queue, &call_tag_);
  }

  const uint8_t* RequestBytes(size_t* size) {
    *size = request_slice_.size();
    return request_slice_.begin();
  }

  int64_t deadline_ns() const { return deadline_ns_; }

  const uint8_t* Metadata(const char* key, size_t key_size, size_t* value_size) {
    const auto& metadata = context_->client_metadata();
    const auto found = metadata.find(grpc::string_ref(key, key_size));
    if (found == metadata.end()) return nullptr;
    *value_size = found->second.size();
    return reinterpret_cast<const uint8_t*>(found->second.data());
  }

  void NotifyOnCancel(void (*on_cancel)(void*), void* arg) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (cancelled_) {
      on_cancel(arg);
    } else {
      on_cancel_ = on_cancel;
      on_cancel_arg_ = arg;
    }
  }

  void PushBack(int64_t delay_ms) { push_back_ms_ = delay_ms; }

  void Finish(int code, const char* message, size_t message_size, const uint8_t* response, size_t response_size,
              void (*free_response)(void*), void* free_arg) {
    {
      // Once this is released, no callback runs and none will.
      std::lock_guard<std::mutex> lock(mutex_);
      on_cancel_ = nullptr;
    }
    ServerCounters* counters = home_->counters;
    if (home_->shutting_down->load(std::memory_order_acquire) &&
        MonotonicNs() >= counters->drain_deadline_ns.load(std::memory_order_relaxed)) {
      counters->cut_off.fetch_add(1, std::memory_order_relaxed);
    }
    counters->in_flight.fetch_sub(1, std::memory_order_release);
    home_->handling.fetch_sub(1, std::memory_order_relaxed);
    counters->finished.fetch_add(1, std::memory_order_relaxed);
    state_ = State::kFinishing;
    if (code == 0) {
      grpc::Slice slice = free_response == nullptr
                              ? grpc::Slice(response, response_size)
                              : grpc::Slice(const_cast<uint8_t*>(response), response_size, free_response, free_arg);
      const grpc::ByteBuffer buffer(&slice, 1);
      responder_->Finish(buffer, grpc::Status::OK, &call_tag_);
    } else {
      counters->failed.fetch_add(1, std::memory_order_relaxed);
      if (free_response != nullptr) free_response(free_arg);
      if (push_back_ms_ >= 0) context_->AddTrailingMetadata(kPushBackKey, std::to_string(push_back_ms_));
      responder_->FinishWithError(
          grpc::Status(static_cast<grpc::StatusCode>(code), StatusMessage(message, message_size)), &call_tag_);
    }
    // The slot may be gone from here on: its poller recycles it.
  }

 private:
  enum class State { kRequested, kHandling, kFinishing };

  struct CallTag final : Tag {
    explicit CallTag(CallSlot* slot) : slot(slot) {}
    void Run(bool ok) override { slot->OnCall(ok); }
    CallSlot* const slot;
  };
  struct DoneTag final : Tag {
    explicit DoneTag(CallSlot* slot) : slot(slot) {}
    void Run(bool) override { slot->OnDone(); }
    CallSlot* const slot;
  };

  void OnCall(bool ok) {
    if (state_ == State::kFinishing) {
      sent_ = true;
      RecycleIfOver();
      return;
    }
    if (!ok) {  // The server shuts down; the done tag of a call that never began does not come.
      OpenSlots& open = home_->counters->open;
      delete this;
      open.Remove();
      return;
    }
    home_->RequestNext();
    Handle();
  }

  void Handle() {
    ServerCounters* counters = home_->counters;
    state_ = State::kHandling;
    counters->started.fetch_add(1, std::memory_order_relaxed);
    home_->handling.fetch_add(1, std::memory_order_relaxed);
    const int64_t now_in_flight = counters->in_flight.fetch_add(1, std::memory_order_relaxed) + 1;
    if (!request_.TrySingleSlice(&request_slice_).ok() && !request_.DumpToSingleSlice(&request_slice_).ok()) {
      Refuse(Code::kInternal, "the request's bytes cannot be read");
      return;
    }
    if (home_->traits.urgent) {
      SetDeadline();
      return home_->handler->handle(home_->handler->context, &kCallApi, this);
    }
    if (counters->draining.load(std::memory_order_relaxed)) {
      counters->refused.fetch_add(1, std::memory_order_relaxed);
      Refuse(Code::kUnavailable, "the server is shutting down");
      return;
    }
    if (now_in_flight > home_->max_concurrent_calls) {
      return RefuseForLoad("too many requests in progress; the limit is " +
                               std::to_string(home_->max_concurrent_calls) + ", retry later",
                           Admission::kLeastRetryMs);
    }
    SetDeadline();
    Pollers::Turns* const turns = Pollers::WaitForTurn();
    if (turns == nullptr) return home_->handler->handle(home_->handler->context, &kCallApi, this);
    if (!turns->admission().Admits(turns->waiting(), deadline_ns_ - MonotonicNs())) {
      return RefuseForLoad("too many requests wait, " + std::to_string(turns->waiting()) +
                               ", for this one to be answered by its deadline; retry later",
                           turns->admission().RetryAfterMs(turns->waiting()));
    }
    turns->Add(this);
  }

  // WaitingCall.
  void RunAfter(int64_t waited_ns) override {
    if (cancelled_) return Refuse(Code::kCancelled, "the caller has gone while the request was waiting");
    const int64_t left_ns = deadline_ns_ - MonotonicNs();
    if (left_ns <= 0) return Refuse(Code::kDeadlineExceeded, "the deadline passed while the request was waiting");
    if (!Admission::IsWorthBeginning(waited_ns, left_ns)) {
      return RefuseForLoad("the request has waited too long to be answered by its deadline; retry later",
                           Admission::kLeastRetryMs);
    }
    home_->handler->handle(home_->handler->context, &kCallApi, this);
  }

  void RefuseForLoad(const std::string& message, int64_t retry_after_ms) {
    home_->counters->refused.fetch_add(1, std::memory_order_relaxed);
    PushBack(retry_after_ms);
    Refuse(Code::kResourceExhausted, message);
  }

  void Refuse(Code code, const std::string& message) {
    Finish(static_cast<int>(code), message.data(), message.size(), nullptr, 0, nullptr, nullptr);
  }

  void SetDeadline() {
    const gpr_timespec deadline = context_->raw_deadline();
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
      deadline_ns_ = MonotonicNs() + home_->default_deadline_ns;
    } else {
      const gpr_timespec monotonic = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
      deadline_ns_ = monotonic.tv_sec * 1'000'000'000 + monotonic.tv_nsec;
    }
  }

  // The call is over for gRPC: the answer was sent, or the client has gone.
  void OnDone() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
      if (context_->IsCancelled()) {
        cancelled_ = true;
        if (on_cancel_ != nullptr) std::exchange(on_cancel_, nullptr)(on_cancel_arg_);
      }
    }
    RecycleIfOver();
  }

  // Both tags have come: nobody knows this slot any more.
  void RecycleIfOver() {
    if (!done_ || !sent_) return;
    responder_.reset();
    context_.reset();
    request_.Clear();
    request_slice_ = grpc::Slice();
    done_ = sent_ = false;
    push_back_ms_ = -1;
    cancelled_ = false;
    state_ = State::kRequested;
    OpenSlots& open = home_->counters->open;
    if (home_->idle.size() < MethodQueue::kMaxIdle) {
      home_->idle.emplace_back(this);
    } else {
      delete this;
    }
    open.Remove();
  }

  MethodQueue* const home_;
  CallTag call_tag_;
  DoneTag done_tag_;
  std::optional<grpc::ServerContext> context_;
  std::optional<grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>> responder_;
  grpc::ByteBuffer request_;
  grpc::Slice request_slice_;
  int64_t deadline_ns_ = TESSERA_NO_DEADLINE;
  int64_t push_back_ms_ = -1;

  // Written by `Finish` before it starts the operation whose completion is the next to read it.
  State state_ = State::kRequested;
  // Of the poller alone.
  bool sent_ = false;
  bool done_ = false;

  std::mutex mutex_;
  std::atomic<bool> cancelled_{false};
  void (*on_cancel_)(void*) = nullptr;  // guarded by mutex_
  void* on_cancel_arg_ = nullptr;       // guarded by mutex_
};

int RawService::AddUnary(const char* name) { return Add(name, grpc::internal::RpcMethod::NORMAL_RPC); }

// On the wire a stream of one direction is one of both in which one side sends a single message.
int RawService::AddStream(const char* name) { return Add(name, grpc::internal::RpcMethod::BIDI_STREAMING); }

int RawService::Add(const char* name, grpc::internal::RpcMethod::RpcType type) {
  AddMethod(new grpc::internal::RpcServiceMethod(name, type, nullptr));
  MarkMethodRaw(methods_count_);
  return methods_count_++;
}

void RawService::Request(int index, grpc::ServerContext* context, grpc::ByteBuffer* request,
                         grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* responder,
                         grpc::ServerCompletionQueue* queue, void* tag) {
  RequestAsyncUnary(index, context, request, responder, queue, queue, tag);
}

void RawService::RequestStream(int index, grpc::ServerContext* context,
                               grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>* responder,
                               grpc::ServerCompletionQueue* queue, void* tag) {
  RequestAsyncBidiStreaming(index, context, responder, queue, queue, tag);
}

MethodQueue::MethodQueue(RawService* service, int index, const TesseraHandler* handler, MethodTraits traits,
                         grpc::ServerCompletionQueue* queue, ServerCounters* counters, int64_t max_concurrent_calls,
                         int64_t default_deadline_ns, const std::atomic<bool>* shutting_down)
    : service(service),
      index(index),
      handler(handler),
      traits(traits),
      queue(queue),
      counters(counters),
      max_concurrent_calls(max_concurrent_calls),
      default_deadline_ns(default_deadline_ns),
      shutting_down(shutting_down) {}

MethodQueue::~MethodQueue() = default;

void MethodQueue::RequestNext() {
  if (shutting_down->load(std::memory_order_acquire)) return;
  std::unique_ptr<CallSlot> slot;
  if (idle.empty()) {
    slot = std::make_unique<CallSlot>(this);
  } else {
    slot = std::move(idle.back());
    idle.pop_back();
  }
  slot.release()->Request();  // It deletes or recycles itself.
}

const TesseraCallApi kCallApi = {
    TESSERA_ABI_VERSION,
    [](TesseraCall* call, size_t* size_bytes) { return static_cast<CallSlot*>(call)->RequestBytes(size_bytes); },
    [](TesseraCall* call) { return static_cast<CallSlot*>(call)->deadline_ns(); },
    [](TesseraCall* call, const char* key, size_t key_size, size_t* value_size) {
      return static_cast<CallSlot*>(call)->Metadata(key, key_size, value_size);
    },
    [](TesseraCall* call, void (*on_cancel)(void*), void* arg) {
      static_cast<CallSlot*>(call)->NotifyOnCancel(on_cancel, arg);
    },
    [](TesseraCall* call, int64_t delay_ms) { static_cast<CallSlot*>(call)->PushBack(delay_ms); },
    [](TesseraCall* call, int code, const char* message, size_t message_size, const uint8_t* response,
       size_t response_size, void (*free_response)(void*), void* free_arg) {
      static_cast<CallSlot*>(call)->Finish(code, message, message_size, response, response_size, free_response,
                                           free_arg);
    },
};

}  // namespace tessera
