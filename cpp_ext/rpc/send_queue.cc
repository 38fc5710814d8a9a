#include "cpp_ext/rpc/send_queue.h"

#include <memory>
#include <utility>

#include "cpp_ext/rpc/lookup_call.h"
#include "cpp_ext/rpc/transport.h"

namespace tessera {
namespace {

// What an RPC costs besides its bytes is gained by merging, and is little beside this many; more would only let each
// member wait for the rows of the others. A single sub-request may be larger.
constexpr size_t kMaxMergedRowsBytes = 1 << 20;

}  // namespace

SendQueue::SendQueue(TesseraRoute* route, size_t target, const LookupLimits& limits, uint32_t max_in_flight)
    : route_(route), target_(target), limits_(limits), max_in_flight_(max_in_flight) {}

SendQueue::Submitted SendQueue::Submit(SubRequest* sub) {
  std::unique_lock<std::mutex> lock(mu_);
  if (sub->state == SubRequest::State::kOver) return Submitted::kWithdrawn;
  route_->target(target_).peer->work.fetch_add(WorkOf(*sub), std::memory_order_relaxed);
  const bool direct = max_in_flight_ == 0 || (in_flight_ < max_in_flight_ && head_ == nullptr);
  LookupCall* call;
  if (direct) {
    call = new LookupCall(this, sub);
    ++in_flight_;
  } else {
    PushBack(sub);
    call = TakeNext();
  }
  lock.unlock();
  Start(call);
  return direct ? Submitted::kSent : Submitted::kQueued;
}

bool SendQueue::Withdraw(SubRequest* sub) {
  std::shared_ptr<TransportCall> unwanted;
  {
    std::lock_guard<std::mutex> lock(mu_);
    switch (sub->state) {
      case SubRequest::State::kNew:
        sub->state = SubRequest::State::kOver;  // Submit will see it
        return false;
      case SubRequest::State::kWaiting:
        Unlink(sub);
        sub->state = SubRequest::State::kOver;
        route_->target(target_).peer->work.fetch_sub(WorkOf(*sub), std::memory_order_relaxed);
        return true;
      case SubRequest::State::kInCall:
        if (!sub->gone) unwanted = sub->call->Leave(sub);
        break;
      case SubRequest::State::kOver:
        break;
    }
  }
  if (unwanted != nullptr) unwanted->Cancel();
  return false;
}

LookupCall* SendQueue::TakeNext() {
  if (head_ == nullptr || in_flight_ >= max_in_flight_) return nullptr;
  SubRequest* const first = head_;
  Unlink(first);
  auto* const call = new LookupCall(this, first);
  ++in_flight_;
  // Strictly in turn: one that does not fit is the first of the next RPC, not overtaken for ever by smaller ones.
  while (!first->alone && head_ != nullptr && !head_->alone) {
    LookupSize grown = call->size();
    grown.Add(head_->size);
    if (grown.rows_bytes > kMaxMergedRowsBytes || !limits_.Allow(grown)) break;
    SubRequest* const sub = head_;
    Unlink(sub);
    call->Add(sub);
  }
  return call;
}

void SendQueue::Start(LookupCall* call) {
  while (call != nullptr) {
    // A server of this process answers before Start returns; a loop, because it could do so for ever.
    if (!call->Start()) return;
    std::lock_guard<std::mutex> lock(mu_);
    call = TakeNext();
  }
}

void SendQueue::PushBack(SubRequest* sub) {
  sub->state = SubRequest::State::kWaiting;
  sub->next = nullptr;
  sub->previous = tail_;
  (tail_ == nullptr ? head_ : tail_->next) = sub;
  tail_ = sub;
}

void SendQueue::PushFront(SubRequest* sub) {
  sub->state = SubRequest::State::kWaiting;
  sub->previous = nullptr;
  sub->next = head_;
  (head_ == nullptr ? tail_ : head_->previous) = sub;
  head_ = sub;
}

void SendQueue::Unlink(SubRequest* sub) {
  (sub->previous == nullptr ? head_ : sub->previous->next) = sub->next;
  (sub->next == nullptr ? tail_ : sub->next->previous) = sub->previous;
  sub->next = sub->previous = nullptr;
}

}  // namespace tessera
