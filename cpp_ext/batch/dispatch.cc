// Which batch starts when. See also finish.cc, scheduler.cc and predict.cc.
#include <algorithm>

#include "cpp_ext/batch/scheduler.h"

namespace tessera {
namespace {

// In a loop: how long a task waits for the other requests in it, as a part of the time that a batch takes.
constexpr int64_t kLoopWaitPart = 4;
constexpr int64_t kLoopWaitLeastNs = 20'000;

constexpr int64_t kNever = TESSERA_NO_DEADLINE;

int64_t Earliest(int64_t a_ns, int64_t b_ns) { return std::min(a_ns, b_ns); }

}  // namespace

bool BatchScheduler::HasSlot(const BatchGroup& group) const {
  const int64_t own = group.policy.max_in_flight_batches;
  if (own > 0 && group.in_flight >= own) return false;
  // A loop whose requests are better off side by side than in one batch need not find that out by trials.
  if (own == 0 && group.in_loop && !group.waiting.empty() && !PaysToGather(*group.waiting.front())) {
    return in_flight_ < limit_.most();
  }
  // A group's own number stands above what the lane finds best, but not above what the lane was told.
  return in_flight_ < (limit_.fixed() ? limit_.limit() : std::max(limit_.limit(), own));
}

bool BatchScheduler::PaysToGather(const BatchQueue& queue) const {
  const BatchGroup& group = *queue.group;
  const int64_t all = std::min(group.stats.in_loop, group.MaxRows());
  const int64_t one_ns = queue.cost.Predict(PaddedRows(group.policy, 1));
  const int64_t all_ns = queue.cost.Predict(PaddedRows(group.policy, all));
  if (one_ns == CostModel::kUnknown) return true;
  // How many batches' worth of work those in flight together do in the time of one: their number where each has a core
  // of its own, 1 on a serial device or a single core. What larger batches cost is learned from those that form anyway
  // when more requests are in the loop than batches may run.
  const double abreast = 1 + (1 - overlap_.part()) * static_cast<double>(limit_.most() - 1);
  return static_cast<double>(all_ns) * abreast <= static_cast<double>(one_ns * all);
}

BatchScheduler::Ready BatchScheduler::ReadyAt(BatchQueue* queue, int64_t now_ns) const {
  const BatchGroup& group = *queue->group;
  const int64_t max_rows = group.MaxRows();
  const int64_t timeout_ns = group.policy.batch_timeout_ns;
  if (queue->rows() >= max_rows) return {now_ns, CloseReason::kFull};
  if (closed_) return {now_ns, CloseReason::kIdle};
  if (group.in_loop) {
    if (group.unanswered >= group.stats.in_loop) return {now_ns, CloseReason::kAllInLoop};
    if (!PaysToGather(*queue)) return {now_ns, CloseReason::kIdle};
    const int64_t cell_ns = queue->cost.Predict(PaddedRows(group.policy, queue->rows()));
    int64_t wait_ns = cell_ns == CostModel::kUnknown ? 0 : cell_ns / kLoopWaitPart;
    if (timeout_ns > 0) wait_ns = std::min(wait_ns, timeout_ns);
    return {queue->oldest_ns() + std::max(wait_ns, kLoopWaitLeastNs), CloseReason::kTimeout};
  }
  const bool lingers = timeout_ns == 0 && group.unanswered < group.callers && now_ns < group.linger_until_ns;
  if (timeout_ns == 0 && !lingers) return {now_ns, CloseReason::kIdle};
  const Ready timeout = {lingers ? group.linger_until_ns : queue->oldest_ns() + timeout_ns, CloseReason::kTimeout};
  const int64_t deadline_ns = queue->EarliestDeadlineNs();
  if (deadline_ns == kNever) return timeout;
  const int64_t predicted_ns = queue->cost.Predict(PaddedRows(group.policy, queue->rows()));
  // Where nothing is known yet, half of the time is for the run.
  const int64_t run_ns = predicted_ns == CostModel::kUnknown ? (deadline_ns - queue->oldest_ns()) / 2 : predicted_ns;
  const int64_t ahead_ns = BeginNs(now_ns) - now_ns;
  const int64_t margin_ns = std::max(run_ns / 8, queue->error.MarginNs(ahead_ns + run_ns));
  const int64_t latest_ns = deadline_ns - ahead_ns - run_ns - margin_ns;
  return latest_ns < timeout.at_ns ? Ready{latest_ns, CloseReason::kDeadline} : timeout;
}

BatchScheduler::Next BatchScheduler::LookAt(BatchGroup* group, int64_t now_ns) {
  Next next;
  if (!group->retries.empty()) {
    next.queue = group->retries.front()->queue.get();
    next.reason = CloseReason::kBisect;
    return next;
  }
  RelaxMemory(group, now_ns);
  Urgency most;
  for (const std::shared_ptr<BatchQueue>& queue : group->waiting) {
    queue->Age(now_ns - options_.max_priority_wait_ns);
    const Ready ready = ReadyAt(queue.get(), now_ns);
    if (ready.at_ns > now_ns) {
      next.event_ns = Earliest(next.event_ns, ready.at_ns);
      continue;
    }
    const Urgency& urgency = queue->tasks().begin()->first;
    if (next.queue != nullptr && !(urgency < most)) continue;
    most = urgency;
    next.queue = queue.get();
    next.reason = ready.reason;
  }
  if (next.queue != nullptr && next.queue->tasks().size() == 1) next.sole = next.queue->tasks().begin()->second.get();
  return next;
}

BatchScheduler::Next BatchScheduler::Look(int64_t now_ns) {
  Next best;
  int64_t event_ns = deadlines_.empty() ? kNever : deadlines_.begin()->first.first;
  std::pair<int32_t, double> best_rank;
  for (BatchGroup* group : active_) {
    if (!HasSlot(*group)) continue;
    const Next next = LookAt(group, now_ns);
    event_ns = Earliest(event_ns, next.event_ns);
    if (next.queue == nullptr) continue;
    const int32_t priority = next.reason == CloseReason::kBisect ? group->retries.front()->tasks_.front()->class_
                                                                 : next.queue->tasks().begin()->first.priority;
    const std::pair<int32_t, double> rank = {priority, group->served_ns};
    if (best.queue != nullptr && best_rank <= rank) continue;
    best = next;
    best_rank = rank;
  }
  best.event_ns = event_ns;
  return best;
}

std::shared_ptr<ScheduledBatch> BatchScheduler::Start(const Next& next, int64_t now_ns, bool brought) {
  BatchGroup* const group = next.queue->group.get();
  std::shared_ptr<ScheduledBatch> batch;
  if (next.reason == CloseReason::kBisect) {
    batch = std::move(group->retries.front());
    group->retries.pop_front();
    auto& tasks = batch->tasks_;
    tasks.erase(std::remove_if(tasks.begin(), tasks.end(),
                               [](const auto& task) { return task->state_ == BatchTask::State::kDone; }),
                tasks.end());
    for (const std::shared_ptr<BatchTask>& task : tasks) batch->rows_ += task->rows;
    batch->padded_rows_ = PaddedRows(group->policy, batch->rows_);
  } else {
    batch = Form(next.queue, now_ns);
  }
  DeactivateIfIdle(group);

  if (limit_.lingers() && group->callers > 1) limit_.OnLingered(group->unanswered >= group->callers);
  Advance(now_ns);
  ++in_flight_;
  ++group->in_flight;
  batch->in_flight = true;
  batch->started_ns = now_ns;
  batch->lane_served_ns = served_ns_;
  Predict(batch.get(), now_ns);
  virtual_ns_ = std::max(virtual_ns_, group->served_ns);
  // Charged now, so that the next choice knows of it, and put right at the end.
  group->served_ns += static_cast<double>(std::max<int64_t>(batch->predicted_ns, 0)) / group->policy.weight;

  BatchGroupStats& stats = group->stats;
  ++stats.batches;
  stats.rows += static_cast<uint64_t>(batch->rows_);
  stats.padding_rows += static_cast<uint64_t>(batch->padded_rows_ - batch->rows_);
  stats.inline_batches += brought ? 1 : 0;
  ++stats.batch_sizes[batch->padded_rows_];
  ++stats.close_reasons[static_cast<size_t>(next.reason)];
  return batch;
}

std::shared_ptr<ScheduledBatch> BatchScheduler::Form(BatchQueue* queue, int64_t now_ns) {
  BatchGroup& group = *queue->group;
  const auto place = std::find_if(group.waiting.begin(), group.waiting.end(),
                                  [queue](const auto& waiting) { return waiting.get() == queue; });
  const Selection selection = SelectTasks(*queue, BeginNs(now_ns));
  auto batch = std::make_shared<ScheduledBatch>();
  batch->queue = *place;
  batch->rows_ = selection.rows;
  batch->padded_rows_ = selection.padded_rows;
  batch->unanswered = selection.tasks;
  batch->tasks_.reserve(selection.tasks);
  for (size_t i = 0; i < selection.tasks; ++i) {
    BatchTask* const task = queue->tasks().begin()->second.get();
    batch->tasks_.push_back(queue->Remove(task));
    task->state_ = BatchTask::State::kRunning;
    task->batch_ = batch.get();
    group.stats.enqueued_rows -= task->rows;
    group.stats.enqueued_bytes -= task->bytes;
    group.stats.queue_delay_micros.Add(static_cast<uint64_t>(now_ns - task->enqueued_ns_) / 1000);
  }
  if (queue->empty()) group.waiting.erase(place);  // the batch holds it now
  return batch;
}

void BatchScheduler::Activate(BatchGroup* group) {
  // What it did not use while it was idle is gone, but for one batch: so it is served before those that keep the device
  // busy, and waits for no more than what runs already.
  group->served_ns = std::max(group->served_ns, virtual_ns_ - quantum_ns_);
  active_.push_back(group);
}

void BatchScheduler::DeactivateIfIdle(BatchGroup* group) {
  if (group->idle()) active_.erase(std::find(active_.begin(), active_.end(), group));
}

void BatchScheduler::Advance(int64_t now_ns) {
  if (in_flight_ > 0) {
    const int64_t passed_ns = now_ns - advanced_ns_;
    busy_ns_ += passed_ns;
    served_ns_ += static_cast<double>(passed_ns) / static_cast<double>(in_flight_);
  }
  advanced_ns_ = now_ns;
}

LaneStats BatchScheduler::stats(int64_t now_ns) const {
  LaneStats stats;
  stats.busy_ns = busy_ns_ + (in_flight_ > 0 ? now_ns - advanced_ns_ : 0);
  stats.since_ns = since_ns_;
  stats.now_ns = now_ns;
  stats.in_flight = in_flight_;
  stats.in_flight_limit = limit_.limit();
  return stats;
}

}  // namespace tessera
