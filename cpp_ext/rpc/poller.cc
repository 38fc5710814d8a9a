#include "cpp_ext/rpc/poller.h"

#include <pthread.h>

#include <utility>

#include "cpp_ext/base/clock.h"

namespace tessera {
namespace {

// What this thread polls, and whose it is.
thread_local const Pollers* this_threads_pollers = nullptr;
thread_local grpc::CompletionQueue* this_threads_queue = nullptr;
thread_local std::atomic<int64_t>* this_threads_awaited = nullptr;
thread_local Pollers::Turns* this_threads_turns = nullptr;

// An event that takes longer may have let others wait: looking for them costs some microseconds, little beside it.
constexpr int64_t kLongNs = 100'000;

// Events of one burst: a bound for what waits for its end.
constexpr int kMaxBurst = 64;

// Events that are collected before calls have their turn again, also in a flood of them.
constexpr int kMaxCollected = 256;

}  // namespace

Pollers::Pollers(std::vector<std::unique_ptr<grpc::CompletionQueue>> queues, int64_t busy_poll_ns)
    : busy_poll_ns_(busy_poll_ns) {
  for (auto& queue : queues) lanes_.emplace_back().queue = std::move(queue);
}

Pollers::~Pollers() { ShutdownAndJoin(); }

void Pollers::SetBurst(const TesseraBurst* burst, void* context) {
  if (burst_ != nullptr || burst == nullptr) return;
  burst_ = burst;
  burst_context_ = context;
}

void Pollers::Start() {
  threads_.reserve(lanes_.size());
  for (Lane& lane : lanes_) {
    threads_.emplace_back([this, &lane] { Poll(&lane); });
    pthread_setname_np(threads_.back().native_handle(), "tessera-poller");
  }
}

void Pollers::ShutdownAndJoin() {
  if (joined_.exchange(true)) return;
  for (const Lane& lane : lanes_) lane.queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  if (!threads_.empty()) return;
  // Never started: a queue must still be emptied before it is destroyed.
  for (Lane& lane : lanes_) Poll(&lane);
}

grpc::CompletionQueue* Pollers::BeginAwaiting() {
  if (this_threads_pollers == this) {
    this_threads_awaited->fetch_add(1, std::memory_order_relaxed);
    return this_threads_queue;
  }
  Lane& lane = lanes_[next_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
  lane.awaited.fetch_add(1, std::memory_order_relaxed);
  return lane.queue.get();
}

void Pollers::EndAwaiting() { this_threads_awaited->fetch_sub(1, std::memory_order_relaxed); }

void Pollers::Poll(Lane* lane) {
  Turns turns;
  this_threads_pollers = this;
  this_threads_queue = lane->queue.get();
  this_threads_awaited = &lane->awaited;
  this_threads_turns = &turns;
  void* tag;
  bool ok;
  while ((busy_poll_ns_ == 0 || BusyPoll(lane)) && lane->queue->Next(&tag, &ok)) Run(lane, tag, ok);
  this_threads_pollers = nullptr;
  this_threads_turns = nullptr;
}

Pollers::Turns* Pollers::WaitForTurn() {
  Turns* const turns = this_threads_turns;
  return turns != nullptr && turns->collecting_ ? turns : nullptr;
}

void Pollers::Turns::RunNext() {
  const Waiting next = waiting_.front();
  waiting_.pop_front();
  next.call->RunAfter(MonotonicNs() - next.since_ns);
}

void Pollers::Run(Lane* lane, void* tag, bool ok) const {
  Turns* const turns = this_threads_turns;
  int64_t began_ns = MonotonicNs();
  RunBurst(lane, turns, [=] { static_cast<Tag*>(tag)->Run(ok); });
  int64_t ended_ns = MonotonicNs();
  if (ended_ns - began_ns < kLongNs) return;
  turns->admission_.OnRun(ended_ns - began_ns);
  for (;;) {
    Collect(lane, turns);
    const size_t waiting = turns->waiting_.size();
    if (waiting == 0) return;
    // What is quick is run without looking again after each.
    began_ns = MonotonicNs();
    do {
      RunBurst(lane, turns, [turns] { turns->RunNext(); });
      ended_ns = MonotonicNs();
    } while (!turns->waiting_.empty() && ended_ns - began_ns < kLongNs);
    const size_t ran = waiting - turns->waiting_.size();
    turns->admission_.OnRun((ended_ns - began_ns) / static_cast<int64_t>(ran));
  }
}

void Pollers::Collect(Lane* lane, Turns* turns) {
  void* tag;
  bool ok;
  turns->collecting_ = true;
  // Shut down: the next call of Next says so again.
  for (int events = 0; events < kMaxCollected; ++events) {
    if (lane->queue->AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC)) != grpc::CompletionQueue::GOT_EVENT) break;
    static_cast<Tag*>(tag)->Run(ok);
  }
  turns->collecting_ = false;
}

template <typename First>
void Pollers::RunBurst(Lane* lane, Turns* turns, First first) const {
  if (burst_ == nullptr) return first();
  burst_->begin(burst_context_);
  first();
  for (int events = 1; events < kMaxBurst && burst_->pending(burst_context_) != 0; ++events) {
    if (!turns->waiting_.empty()) {
      turns->RunNext();
      continue;
    }
    void* tag;
    bool ok;
    // Shut down: the next call says so again.
    if (lane->queue->AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC)) != grpc::CompletionQueue::GOT_EVENT) break;
    static_cast<Tag*>(tag)->Run(ok);
  }
  burst_->end(burst_context_);
}

bool Pollers::BusyPoll(Lane* lane) const {
  int64_t until_ns = 0;
  while (lane->awaited.load(std::memory_order_relaxed) > 0) {
    void* tag;
    bool ok;
    switch (lane->queue->AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC))) {
      case grpc::CompletionQueue::GOT_EVENT:
        Run(lane, tag, ok);
        until_ns = 0;
        continue;
      case grpc::CompletionQueue::SHUTDOWN:
        return false;
      case grpc::CompletionQueue::TIMEOUT:
        break;
    }
    const int64_t now_ns = MonotonicNs();
    if (until_ns == 0) until_ns = now_ns + busy_poll_ns_;
    if (now_ns >= until_ns) return true;
    sched_yield();  // whoever shares the core may be the one that is awaited
  }
  return true;
}

}  // namespace tessera
