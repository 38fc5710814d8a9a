// One slot for a unary call of the server: waits for a call of its method, hands it to the handler, sends the answer,
// begins again.
//
// A slot belongs to one completion queue. It is requested, recycled and freed only on that queue's poller; `finish` and
// `notify_on_cancel` (abi.h) may come from any thread.
#ifndef TESSERA_CPP_EXT_RPC_SERVER_CALL_H_
#define TESSERA_CPP_EXT_RPC_SERVER_CALL_H_

#include <grpcpp/impl/service_type.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/rpc/poller.h"

namespace tessera {

// How many slots gRPC or a handler still knows. Thread-safety: all methods may be called from any thread.
class OpenSlots {
 public:
  void Add() { count_.fetch_add(1, std::memory_order_relaxed); }
  void Remove() {
    if (count_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    std::lock_guard<std::mutex> lock(mutex_);
    none_.notify_all();
  }
  // Waits at most `timeout_ns`; returns whether none is left. REQUIRES: the server has been shut down, so that none
  // opens any more.
  bool WaitUntilNone(int64_t timeout_ns) {
    std::unique_lock<std::mutex> lock(mutex_);
    return none_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                          [this] { return count_.load(std::memory_order_acquire) == 0; });
  }

 private:
  std::atomic<int64_t> count_{0};
  std::mutex mutex_;
  std::condition_variable none_;
};

// Shared by all slots of a server.
struct ServerCounters {
  std::atomic<int64_t> started{0};
  std::atomic<int64_t> finished{0};
  std::atomic<int64_t> failed{0};
  std::atomic<int64_t> refused{0};
  std::atomic<int64_t> in_flight{0};
  // Calls that their handler ended after `drain_deadline_ns`, when the server had ended them already.
  std::atomic<int64_t> cut_off{0};
  std::atomic<int64_t> drain_deadline_ns{TESSERA_NO_DEADLINE};
  // New calls are refused with UNAVAILABLE.
  std::atomic<bool> draining{false};
  OpenSlots open;
};

// Status texts as TensorFlow Serving cuts them: they travel in HTTP/2 headers, which have limits of their own.
std::string StatusMessage(const char* text, size_t size);

// Registers raw methods with gRPC; method i of the service is the i-th added.
class RawService final : public grpc::Service {
 public:
  // Both return the index of the method. `name` must outlive the service.
  int AddUnary(const char* name);
  int AddStream(const char* name);
  void Request(int index, grpc::ServerContext* context, grpc::ByteBuffer* request,
               grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* responder, grpc::ServerCompletionQueue* queue,
               void* tag);
  void RequestStream(int index, grpc::ServerContext* context,
                     grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>* responder,
                     grpc::ServerCompletionQueue* queue, void* tag);

 private:
  int Add(const char* name, grpc::internal::RpcMethod::RpcType type);

  int methods_count_ = 0;
};

// What a handler needs, or does not.
struct MethodTraits {
  // It wants to know of cancellations. One that always finishes before it returns does not; its calls are cheaper.
  bool cancellable = true;
  // Its calls are few and cheap, and must be answered when nothing else is: they neither wait nor are refused.
  bool urgent = false;
};

class CallSlot;

// What the slots of one method on one queue share. Constant after Start but for `handling`, and `idle`,
// which its poller owns.
struct MethodQueue {
  MethodQueue(RawService* service, int index, const TesseraHandler* handler, MethodTraits traits,
              grpc::ServerCompletionQueue* queue, ServerCounters* counters, int64_t max_concurrent_calls,
              int64_t default_deadline_ns, const std::atomic<bool>* shutting_down);
  ~MethodQueue();
  MethodQueue(const MethodQueue&) = delete;
  MethodQueue& operator=(const MethodQueue&) = delete;

  RawService* service;
  int index;
  const TesseraHandler* handler;
  MethodTraits traits;
  grpc::ServerCompletionQueue* queue;
  ServerCounters* counters;
  int64_t max_concurrent_calls;
  int64_t default_deadline_ns;
  const std::atomic<bool>* shutting_down;
  // Calls that the handler has and has not ended.
  std::atomic<int64_t> handling{0};
  // Slots without a call, for reuse; at most kMaxIdle.
  std::vector<std::unique_ptr<CallSlot>> idle;

  static constexpr size_t kMaxIdle = 64;

  // Asks gRPC for the next call. REQUIRES: on the queue's poller, or before it runs.
  void RequestNext();
};

extern const TesseraCallApi kCallApi;

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SERVER_CALL_H_
