#include "cpp_ext/rpc/lookup.h"

#include <cassert>
#include <cstring>
#include <utility>

#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/replica_choice.h"

using tessera::Code;
using tessera::LookupRow;
using tessera::Ref;
using tessera::Status;

TesseraLookup::TesseraLookup(TesseraRoute* route, int64_t deadline_ns, TesseraLookupDone done, void* arg)
    : route_(Ref<TesseraRoute>::Share(route)),
      fanout_(route->fanout()),
      deadline_ns_(deadline_ns),
      done_(done),
      arg_(arg) {}

TesseraLookup* TesseraLookup::Start(TesseraRoute* route, const TesseraGather* gathers, size_t gathers_count,
                                    int64_t deadline_ns, TesseraLookupDone done, void* arg) {
  auto* const lookup = new TesseraLookup(route, deadline_ns, done, arg);
  tessera::Fanout& fanout = lookup->fanout_;
  fanout.lookups_.fetch_add(1, std::memory_order_relaxed);
  const int64_t now_ns = fanout.now_ns_();
  Status status = tessera::CollectRows(*route, gathers, gathers_count, &lookup->rows_, &lookup->repeats_);
  if (status.ok() && now_ns >= deadline_ns) {
    status = Status(Code::kDeadlineExceeded, "the deadline passed before the lookup of " +
                                                 std::to_string(lookup->rows_.size()) + " rows was sent");
  }
  lookup->AddRef();  // for in_flight_
  if (!fanout.in_flight_.Add(lookup)) {
    lookup->Release();
    lookup->decided_ = lookup->reported_ = true;
    lookup->outcome_ = Status(Code::kUnavailable, "the fan-out is stopped");
    lookup->Report();
    return lookup;
  }
  SubRequests sends;
  std::unique_lock<std::mutex> lock(lookup->mu_);
  lookup->missing_ = lookup->rows_.size();
  if (!status.ok() || lookup->missing_ == 0) {
    lookup->Decide(std::move(status));
  } else if (!lookup->decided_) {  // cancelled by Stop
    std::vector<uint32_t> positions(lookup->rows_.size());
    for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<uint32_t>(i);
    lookup->PlanRows(positions, Cause::kFirst, /*shared=*/false, now_ns, &sends);
    if (!lookup->decided_ && route->replicated()) {
      lookup->AddRef();
      lookup->waits_for_timer_ = true;
      fanout.timer_->Schedule(lookup, now_ns + fanout.options_.retry_delay_ns);
    }
  }
  lookup->Proceed(&lock, sends);
  return lookup;
}

void TesseraLookup::PlanRows(const std::vector<uint32_t>& positions, Cause cause, bool shared, int64_t now_ns,
                             SubRequests* sends) {
  tessera::ReplicaChoice choice(*route_, now_ns);
  // By target: position in `sends`, -1; reused by the thread's next plan.
  thread_local std::vector<int32_t> sub_requests;
  sub_requests.assign(route_->target_count(), -1);
  for (const uint32_t position : positions) {
    LookupRow& row = rows_[position];
    const int replica = choice.Best(row);
    if (replica < 0) return Decide(NoServerLeft(row, "no live replica"));
    const size_t target = route_->replicas(row.slot).begin[replica];
    int32_t& known = sub_requests[target];
    if (known < 0) {
      if (cause == Cause::kRetry && !fanout_.budget_.TakeForRetry()) {
        return Decide(NoServerLeft(row, "the retry budget is exhausted"));
      }
      auto sub = std::make_unique<SubRequest>();
      sub->target = target;
      sub->cause = cause;
      sub->started_ns = now_ns;
      sub->shared = shared;
      known = static_cast<int32_t>(sends->size());
      sends->push_back(sub.get());
      subs_.push_back(std::move(sub));
      busy_.fetch_add(1, std::memory_order_relaxed);
    }
    (*sends)[known]->positions.push_back(position);
    row.tried |= uint16_t(1) << replica;
    ++row.in_flight;
  }
}

void TesseraLookup::PlanHedge(SubRequest* late, int64_t now_ns, SubRequests* sends) {
  std::vector<uint32_t> hopeful;
  for (const uint32_t position : late->positions) {
    if (!rows_[position].done && tessera::HasUntriedReplica(*route_, rows_[position])) hopeful.push_back(position);
  }
  if (!hopeful.empty() && !fanout_.budget_.TakeForHedge()) return;
  late->hedged = true;
  if (hopeful.empty()) return;
  late->shared = true;
  PlanRows(hopeful, Cause::kHedge, /*shared=*/true, now_ns, sends);
}

void TesseraLookup::OnTimer() {
  SubRequests sends;
  std::unique_lock<std::mutex> lock(mu_);
  waits_for_timer_ = false;
  if (!decided_) {
    busy_.fetch_add(1, std::memory_order_relaxed);
    const int64_t now_ns = fanout_.now_ns_();
    bool wait_again = false;
    const size_t known = subs_.size();  // planning adds to them
    for (size_t i = 0; i < known; ++i) {
      SubRequest* const sub = subs_[i].get();
      if (sub->settled || sub->hedged) continue;
      if (now_ns - sub->started_ns >= fanout_.options_.retry_delay_ns) {
        route_->target(sub->target).peer->suspect.OnLate(now_ns);
        PlanHedge(sub, now_ns, &sends);
      }
      wait_again = wait_again || !sub->hedged;
    }
    if (wait_again || !sends.empty()) {
      AddRef();
      waits_for_timer_ = true;
      fanout_.timer_->Schedule(this, now_ns + fanout_.options_.retry_delay_ns);
    }
    Proceed(&lock, sends);
  }
  if (lock.owns_lock()) lock.unlock();
  Release();  // the timer's
}

void TesseraLookup::Cancel() {
  std::unique_lock<std::mutex> lock(mu_);
  if (decided_) return;
  busy_.fetch_add(1, std::memory_order_relaxed);
  Decide(Status(Code::kCancelled, "the lookup was cancelled"));
  Proceed(&lock, {});
}

void TesseraLookup::Decide(Status outcome) {
  if (decided_) return;
  decided_ = true;
  outcome_ = std::move(outcome);
  if (waits_for_timer_ && fanout_.timer_->Remove(this)) {
    waits_for_timer_ = false;
    Release();  // the timer's; busy_ keeps another
  }
}

void TesseraLookup::Proceed(std::unique_lock<std::mutex>* lock, const SubRequests& sends) {
  const bool report = decided_ && scattering_ == 0 && !reported_;
  std::vector<std::shared_ptr<tessera::TransportCall>> losers;
  if (report) {
    reported_ = true;
    for (const auto& sub : subs_) {
      if (!sub->settled && sub->call != nullptr) losers.push_back(std::move(sub->call));
    }
  }
  lock->unlock();
  for (const auto& call : losers) call->Cancel();
  for (SubRequest* const sub : sends) Send(sub);
  if (report) Report();
  if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    fanout_.in_flight_.Remove(this);
    Release();  // that of in_flight_
  }
}

void TesseraLookup::Send(SubRequest* sub) {
  tessera::Peer& peer = *route_->target(sub->target).peer;
  std::unique_lock<std::mutex> lock(mu_);
  const size_t limit = fanout_.options_.max_message_bytes;
  sub->rows_bytes = tessera::RowsBytes(*route_, rows_, sub->positions);
  if (!decided_ && sub->rows_bytes > limit) {
    Decide(Status(Code::kResourceExhausted, "the lookup wants " + std::to_string(sub->rows_bytes) +
                                                " bytes of rows from server " + peer.server_id +
                                                ", more than max_message_bytes, " + std::to_string(limit)));
  }
  if (decided_) {
    sub->settled = true;
    return Proceed(&lock, {});
  }
  sub->sent = true;
  lock.unlock();

  fanout_.subrequests_.fetch_add(1, std::memory_order_relaxed);
  if (sub->cause == Cause::kRetry) fanout_.retries_.fetch_add(1, std::memory_order_relaxed);
  if (sub->cause == Cause::kHedge) fanout_.hedges_.fetch_add(1, std::memory_order_relaxed);
  peer.subrequests.fetch_add(1, std::memory_order_relaxed);
  peer.in_flight.fetch_add(1, std::memory_order_relaxed);
  // The answer may come, and end the lookup, before Start returns.
  AddRef();
  // Two pointers: what std::function keeps without allocating.
  auto call = peer.transport->Start(tessera::RequestForRows(*route_, rows_, sub->positions), deadline_ns_,
                                    [this, sub](Status status, const uint8_t* response, size_t response_size) {
                                      OnAnswer(sub, std::move(status), response, response_size);
                                    });
  lock.lock();
  const bool cancel = !sub->settled && reported_;
  if (!sub->settled && !reported_) sub->call = std::move(call);
  lock.unlock();
  if (cancel) call->Cancel();
  Release();
}

void TesseraLookup::OnAnswer(SubRequest* sub, Status status, const uint8_t* response, size_t response_size) {
  SubRequests sends;
  const uint8_t* rows = nullptr;
  bool final = false;
  std::shared_ptr<tessera::TransportCall> call;  // dies outside of the lock
  std::unique_lock<std::mutex> lock(mu_);
  assert(!sub->settled);
  sub->settled = true;
  call = std::move(sub->call);
  const bool over = decided_;
  const int64_t now_ns = fanout_.now_ns_();
  tessera::Peer& peer = *route_->target(sub->target).peer;
  peer.in_flight.fetch_sub(1, std::memory_order_relaxed);
  // What was cancelled, or is no longer waited for, says nothing against the server.
  if (!over || status.ok()) status = Judge(*sub, std::move(status), response, response_size, now_ns, &rows, &final);
  if (!over) {
    if (status.ok()) {
      TakeRows(sub, rows, &lock);
    } else {
      TakeFailure(sub, std::move(status), final, now_ns, &sends);
    }
  }
  Proceed(&lock, sends);
}

void TesseraLookup::TakeRows(SubRequest* sub, const uint8_t* from, std::unique_lock<std::mutex>* lock) {
  size_t copied;
  if (sub->shared) {
    copied = tessera::ScatterRows(*route_, &rows_, sub->positions, from, /*only_missing=*/true);
    for (const uint32_t position : sub->positions) --rows_[position].in_flight;
  } else {
    // Settled and not shared: nobody else will write these rows, or read what is kept of them.
    ++scattering_;
    lock->unlock();
    copied = tessera::ScatterRows(*route_, &rows_, sub->positions, from, /*only_missing=*/false);
    lock->lock();
    --scattering_;
  }
  missing_ -= copied;
  if (missing_ == 0) Decide(Status());
}

void TesseraLookup::TakeFailure(SubRequest* sub, Status status, bool final, int64_t now_ns, SubRequests* sends) {
  NoteFailure(sub->target, status);
  // A call may notice the deadline a little before this clock says so.
  constexpr int64_t kClockSlackNs = 2'000'000;
  const int64_t slack_ns = status.code() == Code::kDeadlineExceeded ? kClockSlackNs : 0;
  if (now_ns >= deadline_ns_ - slack_ns) return Decide(DeadlineExceeded());
  if (final) return Decide(std::move(status));
  std::vector<uint32_t> unasked;
  for (const uint32_t position : sub->positions) {
    LookupRow& row = rows_[position];
    if (--row.in_flight == 0 && !row.done) unasked.push_back(position);
  }
  if (!unasked.empty()) PlanRows(unasked, Cause::kRetry, sub->shared, now_ns, sends);
}

void TesseraLookup::Report() {
  if (outcome_.ok()) {
    for (const tessera::LookupRepeat& repeat : repeats_) memcpy(repeat.to, repeat.from, repeat.row_bytes);
  } else {
    fanout_.failures_.fetch_add(1, std::memory_order_relaxed);
  }
  done_(arg_, static_cast<int>(outcome_.code()), outcome_.message().data(), outcome_.message().size());
}
