#include "cpp_ext/rpc/lookup_call.h"

#include <algorithm>
#include <cassert>
#include <mutex>
#include <utility>

#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup.h"

namespace tessera {

LookupCall::LookupCall(SendQueue* queue, SubRequest* first)
    : queue_(queue), route_(Ref<TesseraRoute>::Share(queue->route_)), first_(first), last_(first), size_(first->size) {
  first->state = SubRequest::State::kInCall;
  first->call = this;
  first->next = nullptr;
}

void LookupCall::Add(SubRequest* sub) {
  sub->state = SubRequest::State::kInCall;
  sub->call = this;
  sub->next = nullptr;
  last_->next = sub;
  last_ = sub;
  size_.Add(sub->size);
  ++members_;
  ++wanted_by_;
}

std::shared_ptr<TransportCall> LookupCall::Leave(SubRequest* sub) {
  sub->gone = true;
  --wanted_by_;
  return wanted_by_ == 0 ? std::move(call_) : nullptr;
}

bool LookupCall::Start() {
  CountStart();
  // One pointer: what std::function keeps without allocating.
  auto call = route_->target(queue_->target_)
                  .peer->transport->Start(Request(), Deadline(),
                                          [this](Status status, const uint8_t* response, size_t response_size) {
                                            OnDone(std::move(status), response, response_size);
                                          });
  std::unique_lock<std::mutex> lock(queue_->mu_);
  start_returned_ = true;
  const bool ended = ended_;
  const bool unwanted = !ended && wanted_by_ == 0;
  if (!ended && !unwanted) call_ = std::move(call);
  lock.unlock();
  if (unwanted && call != nullptr) call->Cancel();
  // The queue lives on: its route is kept by the caller's lookup, or by another call that ends.
  Release();
  return ended;
}

std::string LookupCall::Request() const {
  LookupHeader header;
  header.package_digest = route_->package_digest();
  header.model = route_->model();
  header.version = route_->version();
  header.epoch = route_->epoch();
  LookupRequestWriter writer(header, size_.blocks, size_.ids_bytes);
  for (const SubRequest* sub = first_; sub != nullptr; sub = sub->next) {
    AppendRows(*route_, *sub->rows, sub->positions, &writer);
  }
  return writer.Finish();
}

int64_t LookupCall::Deadline() const {
  // Members whose deadline is earlier are ended by the timer. The RPC goes on for those that have time, and is
  // cancelled when there are none.
  int64_t deadline_ns = 0;
  for (const SubRequest* sub = first_; sub != nullptr; sub = sub->next) {
    deadline_ns = std::max(deadline_ns, sub->deadline_ns);
  }
  return deadline_ns;
}

void LookupCall::CountStart() {
  Fanout& fanout = route_->fanout();
  started_ns_ = fanout.now_ns_();
  Peer& peer = *route_->target(queue_->target_).peer;
  const int64_t members = static_cast<int64_t>(members_);
  fanout.rpcs_.fetch_add(1, std::memory_order_relaxed);
  fanout.subrequests_.fetch_add(members, std::memory_order_relaxed);
  if (members > 1) fanout.merged_.fetch_add(members, std::memory_order_relaxed);
  peer.rpcs.fetch_add(1, std::memory_order_relaxed);
  peer.subrequests.fetch_add(members, std::memory_order_relaxed);
  peer.in_flight.fetch_add(1, std::memory_order_relaxed);
}

void LookupCall::OnDone(Status status, const uint8_t* response, size_t response_size) {
  Fanout& fanout = route_->fanout();
  Peer& peer = *route_->target(queue_->target_).peer;
  const int64_t now_ns = fanout.now_ns_();
  const LookupVerdict verdict = Judge(std::move(status), response, response_size, wanted_by_ > 0, now_ns);
  peer.in_flight.fetch_sub(1, std::memory_order_relaxed);
  std::shared_ptr<TransportCall> call;  // dies outside of the lock
  std::unique_lock<std::mutex> lock(queue_->mu_);
  assert(!ended_);
  ended_ = true;
  call = std::move(call_);
  --queue_->in_flight_;
  SubRequest* told = first_;
  if (verdict.blames_request && members_ > 1) {
    told = SendAgainAlone();
  } else {
    for (SubRequest* sub = first_; sub != nullptr; sub = sub->next) sub->state = SubRequest::State::kOver;
  }
  int64_t work = 0;
  for (const SubRequest* sub = told; sub != nullptr; sub = sub->next) work += WorkOf(*sub);
  // Before Start has returned, its caller sends the next one.
  LookupCall* const next = start_returned_ ? queue_->TakeNext() : nullptr;
  lock.unlock();
  // First of all the server gets its next work: the members may do much with what they got.
  peer.work.fetch_sub(work, std::memory_order_relaxed);
  queue_->Start(next);
  fanout.LookForOutliers(now_ns);
  Tell(told, verdict);
  Release();
}

SubRequest* LookupCall::SendAgainAlone() {
  SubRequest *over = nullptr, *again = nullptr;
  for (SubRequest *sub = first_, *next; sub != nullptr; sub = next) {
    next = sub->next;
    SubRequest*& list = sub->gone ? over : again;
    sub->next = list;
    list = sub;
    sub->state = SubRequest::State::kOver;
  }
  // `again` is in reverse order, as PushFront wants it.
  for (SubRequest *sub = again, *next; sub != nullptr; sub = next) {
    next = sub->next;
    sub->alone = true;
    sub->call = nullptr;
    queue_->PushFront(sub);
  }
  return over;
}

void LookupCall::Tell(SubRequest* members, const LookupVerdict& verdict) {
  const uint8_t* rows = verdict.rows;
  for (SubRequest *sub = members, *next; sub != nullptr; sub = next) {
    next = sub->next;
    const size_t rows_bytes = sub->size.rows_bytes;
    sub->lookup->OnAnswer(sub, verdict.status, rows, verdict.final);
    if (rows != nullptr) rows += rows_bytes;
  }
}

}  // namespace tessera
