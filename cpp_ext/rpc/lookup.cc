#include "cpp_ext/rpc/lookup.h"

#include <cassert>
#include <cstring>
#include <utility>

#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup_trace.h"
#include "cpp_ext/rpc/replica_choice.h"
#include "cpp_ext/rpc/send_queue.h"

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
  if (route->trace() != nullptr) lookup->traced_ = route->trace()->Begin(now_ns);
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
  const tessera::LookupLimits limits = fanout_.limits(route_->model());
  // By target; reused by the thread's next plan.
  thread_local std::vector<SubRequest*> by_target;
  by_target.assign(route_->target_count(), nullptr);
  for (const uint32_t position : positions) {
    LookupRow& row = rows_[position];
    const int replica = choice.Best(row);
    if (replica < 0) return Decide(NoServerLeft(row, "no live replica"));
    const size_t target = route_->replicas(row.slot).begin[replica];
    SubRequest*& sub = by_target[target];
    if (sub == nullptr || !sub->TryAdd(*route_, row.table, position, limits)) {
      sub = NewSubRequest(target, cause, shared, now_ns, row);
      if (sub == nullptr) return;
      sends->push_back(sub);
      if (!sub->TryAdd(*route_, row.table, position, limits)) return Decide(RowTooLarge(row));
    }
    row.tried |= uint16_t(1) << replica;
    ++row.in_flight;
  }
}

tessera::SubRequest* TesseraLookup::NewSubRequest(size_t target, Cause cause, bool shared, int64_t now_ns,
                                                  const LookupRow& row) {
  if (cause == Cause::kRetry && !fanout_.budget_.TakeForRetry()) {
    Decide(NoServerLeft(row, "the retry budget is exhausted"));
    return nullptr;
  }
  auto sub = std::make_unique<SubRequest>();
  sub->lookup = this;
  sub->rows = &rows_;
  sub->target = target;
  sub->cause = cause;
  sub->deadline_ns = deadline_ns_;
  sub->started_ns = now_ns;
  sub->shared = shared;
  subs_.push_back(std::move(sub));
  busy_.fetch_add(1, std::memory_order_relaxed);
  return subs_.back().get();
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
  // The timer's references; busy_ keeps another.
  if (waits_for_timer_ && fanout_.timer_->Remove(this)) {
    waits_for_timer_ = false;
    Release();
  }
  if (waits_for_deadline_ && fanout_.timer_->Remove(&deadline_entry_)) {
    waits_for_deadline_ = false;
    Release();
  }
}

void TesseraLookup::Proceed(std::unique_lock<std::mutex>* lock, const SubRequests& sends) {
  const bool report = decided_ && scattering_ == 0 && !reported_;
  SubRequests losers;
  if (report) {
    reported_ = true;
    for (const auto& sub : subs_) {
      if (sub->sent && !sub->settled) losers.push_back(sub.get());
    }
  }
  lock->unlock();
  for (SubRequest* const sub : losers) Withdraw(sub);
  for (SubRequest* const sub : sends) Send(sub);
  if (report) Report();
  if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    fanout_.in_flight_.Remove(this);
    Release();  // that of in_flight_
  }
}

void TesseraLookup::Send(SubRequest* sub) {
  using Submitted = tessera::SendQueue::Submitted;
  std::unique_lock<std::mutex> lock(mu_);
  if (decided_) {
    sub->settled = true;
    return Proceed(&lock, {});
  }
  sub->sent = true;
  lock.unlock();
  if (sub->cause == Cause::kRetry) fanout_.retries_.fetch_add(1, std::memory_order_relaxed);
  if (sub->cause == Cause::kHedge) fanout_.hedges_.fetch_add(1, std::memory_order_relaxed);
  AddRef();  // the answer may come, and end the lookup, before Submit returns
  const Submitted submitted = route_->target(sub->target).queue->Submit(sub);
  if (submitted != Submitted::kSent) {
    lock.lock();
    if (submitted == Submitted::kQueued) {
      KeepDeadline();
      lock.unlock();
    } else {
      sub->settled = true;
      Proceed(&lock, {});
    }
  }
  Release();
}

void TesseraLookup::Withdraw(SubRequest* sub) {
  if (!route_->target(sub->target).queue->Withdraw(sub)) return;  // its answer comes, or Submit says so
  {
    std::lock_guard<std::mutex> lock(mu_);
    sub->settled = true;
  }
  busy_.fetch_sub(1, std::memory_order_acq_rel);  // not the last: the caller is at work here
}

void TesseraLookup::OnAnswer(SubRequest* sub, Status status, const uint8_t* rows, bool final) {
  SubRequests sends;
  std::unique_lock<std::mutex> lock(mu_);
  assert(!sub->settled);
  sub->settled = true;
  if (route_->trace() != nullptr) TraceAnswer(*sub, status);
  if (status.ok()) fanout_.budget_.OnSuccess();
  if (!decided_) {
    if (status.ok()) {
      TakeRows(sub, rows, &lock);
    } else {
      TakeFailure(sub, std::move(status), final, fanout_.now_ns_(), &sends);
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
  if (route_->trace() != nullptr) TraceEnd();
  done_(arg_, static_cast<int>(outcome_.code()), outcome_.message().data(), outcome_.message().size());
}
