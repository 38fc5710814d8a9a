#include "cpp_ext/batch/lane_impl.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace tessera {
namespace {

// Batches of others that a caller's thread starts in a row, before a worker takes over: a poller is not to be captured.
constexpr int kForeignStarts = 8;
// How long a task may wait for requests that are ready on the same thread.
constexpr int64_t kBurstNs = 200'000;

}  // namespace

thread_local BatchLane::Impl::Frame* BatchLane::Impl::frame_ = nullptr;
thread_local BatchLane::Impl::Burst BatchLane::Impl::burst_;

BatchLane::Impl::Impl(std::string name, const LaneOptions& options)
    : name(std::move(name)),
      options(options),
      scheduler(options, MonotonicNs()),
      timer_thread_([this] { TimerMain(); }) {
  pthread_setname_np(timer_thread_.native_handle(), "tessera-batch-t");
}

BatchLane::Impl::~Impl() {
  Enter(nullptr, [this](int64_t, BatchScheduler::Actions*) {
    closing_ = true;
    scheduler.Close();
  });
  {
    Lock lock(mu_);
    left_.wait(lock, [this] { return scheduler.idle() && visits_ == 0; });
    stopped_ = true;
  }
  work_.notify_all();
  timer_.notify_all();
  timer_thread_.join();
  for (std::thread& worker : workers_) worker.join();
}

void BatchLane::Impl::Follow(Lock* lock, int64_t now_ns, const BatchTask* brought, BatchScheduler::Actions* actions) {
  if (frame_ != nullptr) {
    FollowInside(lock, now_ns, brought, actions);
    return;
  }
  if (burst_.active && brought != nullptr && actions->answers.empty() && actions->cancels.empty()) {
    Wakes wakes;
    if (Defer(now_ns, &wakes)) {
      lock->unlock();
      Notify(wakes);
      return;
    }
  }
  Frame self{this, Kind::kCaller, brought};
  frame_ = &self;
  ++visits_;
  Pump(lock, &self);
  if (!actions->answers.empty() || !actions->cancels.empty()) {
    lock->unlock();
    Deliver(actions);
    lock->lock();
    Pump(lock, &self);
  }
  Leave();
  frame_ = nullptr;
  lock->unlock();
}

bool BatchLane::Impl::Defer(int64_t now_ns, Wakes* wakes) {
  if (burst_.lane != nullptr && burst_.lane != this) return false;
  const BatchScheduler::Next next = scheduler.Look(now_ns);
  if (next.queue != nullptr && next.reason == CloseReason::kFull) return false;
  ArmTimer(next.event_ns, wakes);
  if (next.queue == nullptr || burst_.lane != nullptr) return true;
  burst_.lane = this;
  burst_.until_ns = now_ns + kBurstNs;
  return true;
}

void BatchLane::Impl::EndBurst() {
  Impl* const lane = burst_.lane;
  burst_ = {};
  if (lane == nullptr) return;
  Frame self{lane, Kind::kCaller};
  self.burst_batches = 1;
  frame_ = &self;
  Lock lock(lane->mu_);
  ++lane->visits_;
  lane->Pump(&lock, &self);
  lane->Leave();
  frame_ = nullptr;
}

void BatchLane::Impl::FollowInside(Lock* lock, int64_t now_ns, const BatchTask* brought,
                                   BatchScheduler::Actions* actions) {
  const bool own = frame_->lane == this;
  if (own && brought != nullptr) frame_->brought = brought;
  const BatchScheduler::Next next = scheduler.Look(now_ns);
  Wakes wakes;
  ArmTimer(next.event_ns, &wakes);
  if (next.queue != nullptr) {
    // The frame looks again when it is through with what is ahead of it; others may be faster.
    const bool frame_takes_it = own && frame_->ahead + actions->answers.size() == 0 && MayRun(*frame_, next);
    if (!frame_takes_it) WakeWorker(&wakes);
  }
  if (!own) ++visits_;  // else the frame's own visit, or its being a thread of the lane, keeps the lane alive
  lock->unlock();
  Notify(wakes);
  Deliver(actions);
  if (own) return;
  lock->lock();
  Leave();
  lock->unlock();
}

int64_t BatchLane::Impl::Pump(Lock* lock, Frame* self) {
  while (true) {
    const int64_t now_ns = MonotonicNs();
    const BatchScheduler::Next next = scheduler.Look(now_ns);
    Wakes wakes;
    ArmTimer(next.event_ns, &wakes);
    if (next.queue == nullptr || (!MayRun(*self, next) && WakeWorker(&wakes))) {
      // Under the lock: the lane may end as soon as it is free.
      Notify(wakes);
      return next.event_ns;
    }
    const bool brought = Brought(*self, next);
    if (!brought) ++self->foreign_starts;
    self->brought = nullptr;
    self->burst_batches = 0;
    self->ahead = 1;
    {
      std::shared_ptr<ScheduledBatch> batch = scheduler.Start(next, now_ns, brought);
      const std::shared_ptr<BatchQueue> queue = batch->queue;  // released, like the batch, without the lock
      if (scheduler.Look(now_ns).queue != nullptr) WakeWorker(&wakes);
      lock->unlock();
      Notify(wakes);
      queue->runner->Run(std::move(batch));
    }
    lock->lock();
    self->ahead = 0;
  }
}

bool BatchLane::Impl::Brought(const Frame& self, const BatchScheduler::Next& next) {
  // The timer's thread must not follow a loop: it has other tasks to look after.
  if (self.kind != Kind::kCaller) return false;
  return self.burst_batches > 0 || (next.sole != nullptr && next.sole == self.brought);
}

bool BatchLane::Impl::MayRun(const Frame& self, const BatchScheduler::Next& next) const {
  if (self.kind == Kind::kWorker) return true;
  const bool brought = Brought(self, next);
  if (!next.queue->occupies_thread) return brought || self.foreign_starts < kForeignStarts;
  if (!brought) return false;
  const BatchGroup& group = *next.queue->group;
  const int64_t rows = std::max<int64_t>(std::min(next.queue->rows(), group.MaxRows()), 1);
  const int64_t cost_ns = next.queue->cost.Predict(PaddedRows(group.policy, rows));
  return cost_ns != CostModel::kUnknown && cost_ns <= options.inline_budget_ns;
}

bool BatchLane::Impl::WakeWorker(Wakes* wakes) {
  if (worker_called_) return true;  // it wakes the next one when there is more
  if (idle_workers_ > 0) {
    worker_called_ = wakes->worker = true;
    return true;
  }
  // One more than batches: while one thread delivers results, the others keep the device busy.
  if (workers_.size() <= static_cast<size_t>(scheduler.most_in_flight())) {
    try {
      workers_.emplace_back([this] { WorkerMain(); });
      worker_called_ = true;
    } catch (const std::system_error&) {
      // No more threads: those that exist do it, or else the one that asks.
    }
  }
  return !workers_.empty();  // a busy worker looks before it sleeps
}

void BatchLane::Impl::ArmTimer(int64_t event_ns, Wakes* wakes) {
  // It need not be told of a later time: it looks, and sleeps again.
  if (event_ns >= timer_at_ns_) return;
  timer_at_ns_ = event_ns;
  wakes->timer = true;
}

void BatchLane::Impl::Notify(const Wakes& wakes) {
  if (wakes.worker) work_.notify_one();
  if (wakes.timer) timer_.notify_one();
}

void BatchLane::Impl::Deliver(BatchScheduler::Actions* actions) {
  const size_t ahead = frame_->ahead;
  for (const std::shared_ptr<ScheduledBatch>& batch : actions->cancels) batch->queue->runner->Cancel(batch.get());
  size_t left = actions->answers.size();
  for (BatchScheduler::Answer& answer : actions->answers) {
    frame_->ahead = --left;
    answer.task->Done(answer.status, answer.batch.get(), answer.first_row);
  }
  frame_->ahead = ahead;
}

void BatchLane::Impl::WorkerMain() {
  pthread_setname_np(pthread_self(), "tessera-batch");
  Frame self{this, Kind::kWorker};
  frame_ = &self;
  Lock lock(mu_);
  worker_called_ = false;
  while (true) {
    ++visits_;
    Pump(&lock, &self);
    Leave();
    ++idle_workers_;
    work_.wait(lock, [this] { return worker_called_ || stopped_; });
    --idle_workers_;
    if (stopped_) return;
    worker_called_ = false;
  }
}

void BatchLane::Impl::TimerMain() {
  prctl(PR_SET_TIMERSLACK, 1000UL);  // nanoseconds; the default of 50 microseconds would be added to every wait
  Frame self{this, Kind::kTimer};
  frame_ = &self;
  Lock lock(mu_);
  while (!stopped_) {
    timer_at_ns_ = kTimerAwake;  // nobody needs to wake it: it looks again before it sleeps
    BatchScheduler::Actions actions;
    scheduler.Expire(MonotonicNs(), &actions);
    self.foreign_starts = 0;
    ++visits_;
    const int64_t event_ns = Pump(&lock, &self);
    if (!actions.answers.empty() || !actions.cancels.empty()) {
      lock.unlock();
      Deliver(&actions);
      actions = {};
      lock.lock();
      Leave();
      continue;
    }
    Leave();
    if (stopped_) return;
    timer_at_ns_ = event_ns;
    if (event_ns == TESSERA_NO_DEADLINE) {
      timer_.wait(lock);
    } else {
      // steady_clock is CLOCK_MONOTONIC.
      timer_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(event_ns)));
    }
    ++timer_wakeups;
  }
}

void BatchLane::Impl::Leave() {
  --visits_;
  if (closing_ && visits_ == 0 && scheduler.idle()) left_.notify_all();
}

}  // namespace tessera
