#include "cpp_ext/rpc/poller.h"

#include <pthread.h>

#include <utility>

namespace tessera {
namespace {

// The queue that this thread polls, and whose it is.
thread_local const Pollers* this_threads_pollers = nullptr;
thread_local grpc::CompletionQueue* this_threads_queue = nullptr;

}  // namespace

Pollers::Pollers(std::vector<std::unique_ptr<grpc::CompletionQueue>> queues) : queues_(std::move(queues)) {}

Pollers::~Pollers() { ShutdownAndJoin(); }

void Pollers::Start() {
  threads_.reserve(queues_.size());
  for (const auto& queue : queues_) {
    threads_.emplace_back([this, raw = queue.get()] { Poll(raw); });
    pthread_setname_np(threads_.back().native_handle(), "tessera-poller");
  }
}

void Pollers::ShutdownAndJoin() {
  if (joined_.exchange(true)) return;
  for (const auto& queue : queues_) queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  if (!threads_.empty()) return;
  // Never started: a queue must still be emptied before it is destroyed.
  for (const auto& queue : queues_) Poll(queue.get());
}

grpc::CompletionQueue* Pollers::ThisThreadsQueue() {
  if (this_threads_pollers == this) return this_threads_queue;
  return queues_[next_.fetch_add(1, std::memory_order_relaxed) % queues_.size()].get();
}

void Pollers::Poll(grpc::CompletionQueue* queue) {
  this_threads_pollers = this;
  this_threads_queue = queue;
  void* tag;
  bool ok;
  while (queue->Next(&tag, &ok)) static_cast<Tag*>(tag)->Run(ok);
  this_threads_pollers = nullptr;
}

}  // namespace tessera
