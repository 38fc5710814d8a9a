// Admission, and answers before the end of a batch. See also dispatch.cc and predict.cc.
#include "cpp_ext/batch/scheduler.h"

#include <algorithm>
#include <cassert>

namespace tessera {
namespace {

// A task without a deadline is as urgent as one that has this many times `max_priority_wait_ns` left.
constexpr int64_t kPatience = 10;

}  // namespace

BatchScheduler::BatchScheduler(const LaneOptions& options, int64_t now_ns)
    : options_(options),
      since_ns_(now_ns),
      limit_(options.max_in_flight_batches),
      most_in_flight_(limit_.most()),
      advanced_ns_(now_ns) {}

Status BatchScheduler::SetPolicy(BatchGroup* group, BatchPolicy policy) {
  if (Status status = policy.Check(); !status.ok()) return status;
  group->most_rows = std::max({group->most_rows, group->policy.max_batch_size, policy.max_batch_size});
  group->policy = std::move(policy);
  if (!limit_.fixed()) most_in_flight_ = std::max(most_in_flight_, group->policy.max_in_flight_batches);
  for (const std::shared_ptr<BatchQueue>& queue : group->waiting) queue->Reclassify();
  return Status();
}

void BatchScheduler::Enqueue(const std::shared_ptr<BatchQueue>& queue, const std::shared_ptr<BatchTask>* tasks,
                             size_t count, int64_t now_ns, Actions* actions) {
  const Status status = Admit(queue.get(), tasks, count, now_ns);
  for (size_t i = 0; i < count; ++i) {
    if (tasks[i]->state_ != BatchTask::State::kNew) continue;
    if (status.ok()) {
      Push(queue, tasks[i], now_ns);
    } else {
      tasks[i]->state_ = BatchTask::State::kDone;
      actions->answers.push_back({tasks[i], status, nullptr, 0});
    }
  }
}

Status BatchScheduler::Admit(BatchQueue* queue, const std::shared_ptr<BatchTask>* tasks, size_t count, int64_t now_ns) {
  BatchGroup& group = *queue->group;
  const BatchPolicy& policy = group.policy;
  int64_t rows = 0, bytes = 0;
  const BatchTask* earliest = nullptr;
  for (size_t i = 0; i < count; ++i) {
    const BatchTask& task = *tasks[i];
    if (task.state_ != BatchTask::State::kNew) continue;
    if (task.rows < 1 || task.rows > std::max(group.most_rows, policy.max_batch_size)) {
      ++group.stats.rejected_too_large;
      return Status(Code::kInvalidArgument, group.name + ": a task has " + std::to_string(task.rows) +
                                                " rows, expected 1 to max_batch_size, which is " +
                                                std::to_string(policy.max_batch_size));
    }
    rows += task.rows;
    bytes += task.bytes;
    if (earliest == nullptr || task.deadline_ns < earliest->deadline_ns) earliest = &task;
  }
  if (earliest == nullptr) return Status();
  if (earliest->deadline_ns != TESSERA_NO_DEADLINE) {
    if (Status status = CheckDeadline(*queue, *earliest, rows, now_ns); !status.ok()) return status;
  }
  // Whatever is larger than a bound could never run if it were not admitted alone.
  if (group.stats.enqueued_rows == 0) return Status();
  if (group.stats.enqueued_rows + rows > policy.max_enqueued_rows) {
    ++group.stats.rejected_rows_bound;
    return Status(Code::kUnavailable,
                  "The batch scheduling queue to which this task was submitted is full; " + group.name + ": " +
                      std::to_string(group.stats.enqueued_rows) + " rows wait, the input has " + std::to_string(rows) +
                      ", max_enqueued_rows is " + std::to_string(policy.max_enqueued_rows) + "; expected wait " +
                      Micros(ExpectedWaitNs(*queue, group.stats.enqueued_rows, now_ns)));
  }
  if (group.stats.enqueued_bytes + bytes > policy.max_enqueued_bytes) {
    ++group.stats.rejected_bytes_bound;
    return Status(Code::kResourceExhausted,
                  "The batch scheduling queue of " + group.name +
                      " holds too many bytes: " + std::to_string(group.stats.enqueued_bytes) + " wait, the input has " +
                      std::to_string(bytes) + ", max_enqueued_bytes is " + std::to_string(policy.max_enqueued_bytes) +
                      "; expected wait " + Micros(ExpectedWaitNs(*queue, group.stats.enqueued_rows, now_ns)));
  }
  return Status();
}

void BatchScheduler::Push(const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<BatchTask> task, int64_t now_ns) {
  BatchGroup& group = *queue->group;
  task->state_ = BatchTask::State::kQueued;
  task->class_ = task->priority < 0 ? group.policy.priority : task->priority;
  task->sequence_ = sequence_++;
  task->enqueued_ns_ = now_ns;
  task->urgency_ns_ = std::min(task->deadline_ns, now_ns + kPatience * options_.max_priority_wait_ns);
  if (task->deadline_ns != TESSERA_NO_DEADLINE) {
    deadlines_.emplace(std::make_pair(task->deadline_ns, task->sequence_), task);
  }
  ++unanswered_;
  ++group.unanswered;
  ++group.stats.tasks;
  group.stats.enqueued_rows += task->rows;
  group.stats.enqueued_bytes += task->bytes;
  if (queue->empty()) {
    if (group.idle()) Activate(&group);
    group.waiting.push_back(queue);
  }
  queue->Push(std::move(task));
}

void BatchScheduler::Cancel(const std::shared_ptr<BatchTask>& task, Status status, Actions* actions) {
  if (task->state_ == BatchTask::State::kDone) return;
  if (task->state_ == BatchTask::State::kNew) {  // Enqueue, if it comes, finds it answered
    task->state_ = BatchTask::State::kDone;
    actions->answers.push_back({task, std::move(status), nullptr, 0});
    return;
  }
  BatchQueue* const queue =
      task->queue_ != nullptr ? task->queue_ : static_cast<ScheduledBatch*>(task->batch_)->queue.get();
  ++queue->group->stats.cancelled;
  Drop(task, std::move(status), actions);
}

void BatchScheduler::Expire(int64_t now_ns, Actions* actions) {
  while (!deadlines_.empty() && deadlines_.begin()->first.first <= now_ns) {
    const std::shared_ptr<BatchTask> task = deadlines_.begin()->second;
    if (task->state_ == BatchTask::State::kQueued) {
      BatchGroup& group = *task->queue_->group;
      ++group.stats.expired_queued;
      Drop(task, Status(Code::kDeadlineExceeded, group.name + ": the deadline passed while the task waited to run"),
           actions);
    } else {
      BatchGroup& group = *static_cast<ScheduledBatch*>(task->batch_)->queue->group;
      ++group.stats.expired_running;
      Drop(task, Status(Code::kDeadlineExceeded, group.name + ": the deadline passed while the task's batch ran"),
           actions);
    }
  }
  DropLate(now_ns, actions);
}

void BatchScheduler::Drop(const std::shared_ptr<BatchTask>& task, Status status, Actions* actions) {
  actions->answers.push_back({task, std::move(status), nullptr, 0});
  if (task->state_ == BatchTask::State::kQueued) {
    BatchGroup* const group = task->queue_->group.get();
    Answered(task.get(), group);
    actions->released.push_back(RemoveQueued(task.get(), actions));
    DeactivateIfIdle(group);
    return;
  }
  auto* const batch = static_cast<ScheduledBatch*>(task->batch_);
  BatchGroup* const group = batch->queue->group.get();
  Answered(task.get(), group);
  if (--batch->unanswered > 0) return;
  if (batch->in_flight) {
    actions->cancels.push_back(batch->shared_from_this());
    return;
  }
  actions->released.push_back(batch->shared_from_this());
  group->retries.erase(std::find_if(group->retries.begin(), group->retries.end(),
                                    [batch](const auto& retry) { return retry.get() == batch; }));
  DeactivateIfIdle(group);
}

std::shared_ptr<BatchTask> BatchScheduler::RemoveQueued(BatchTask* task, Actions* actions) {
  BatchQueue* const queue = task->queue_;
  BatchGroup& group = *queue->group;
  group.stats.enqueued_rows -= task->rows;
  group.stats.enqueued_bytes -= task->bytes;
  std::shared_ptr<BatchTask> removed = queue->Remove(task);
  if (queue->empty()) {
    const auto place = std::find_if(group.waiting.begin(), group.waiting.end(),
                                    [queue](const auto& waiting) { return waiting.get() == queue; });
    actions->released.push_back(std::move(*place));
    group.waiting.erase(place);
  }
  return removed;
}

void BatchScheduler::Answered(BatchTask* task, BatchGroup* group) {
  task->state_ = BatchTask::State::kDone;
  --unanswered_;
  --group->unanswered;
  Forget(*task);
}

void BatchScheduler::Forget(const BatchTask& task) {
  if (task.deadline_ns != TESSERA_NO_DEADLINE) deadlines_.erase({task.deadline_ns, task.sequence_});
}

}  // namespace tessera
