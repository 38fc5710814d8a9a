// What the end of a batch means: for its tasks, for what the lane has learned, and for the next one.
#include <algorithm>
#include <cassert>
#include <memory>
#include <utility>
#include <vector>

#include "cpp_ext/batch/scheduler.h"

namespace tessera {
namespace {

// How long a batch waits at most for the callers of the one before, as a part of the time that that one took.
constexpr int64_t kLingerPart = 2;
// How long a batch size that ran out of memory is avoided before twice as much is tried.
constexpr int64_t kMemoryBackOffNs = 10'000'000'000;
// Of the longest batch of late, per batch.
constexpr double kQuantumFade = 0.9;

}  // namespace

void BatchScheduler::Charge(ScheduledBatch* batch, int64_t now_ns) {
  Advance(now_ns);
  BatchGroup& group = *batch->queue->group;
  const double device_ns = std::max(served_ns_ - batch->lane_served_ns, 1.0);  // never free: groups take turns
  quantum_ns_ = std::max(device_ns, quantum_ns_ * kQuantumFade);
  group.stats.device_ns += static_cast<int64_t>(device_ns);
  group.served_ns += (device_ns - static_cast<double>(std::max<int64_t>(batch->predicted_ns, 0))) / group.policy.weight;
  --in_flight_;
  --group.in_flight;
  batch->in_flight = false;
}

void BatchScheduler::Finish(const std::shared_ptr<Batch>& ended, const Status& status, int64_t now_ns,
                            Actions* actions) {
  const auto batch = std::static_pointer_cast<ScheduledBatch>(ended);
  assert(batch->in_flight);
  LearnFrom(batch.get(), status.ok(), now_ns);
  End(batch, status, now_ns, actions);
  DropLate(now_ns, actions);
}

void BatchScheduler::End(const std::shared_ptr<ScheduledBatch>& batch, const Status& status, int64_t now_ns,
                         Actions* actions) {
  BatchQueue& queue = *batch->queue;
  BatchGroup& group = *queue.group;
  Charge(batch.get(), now_ns);
  group.stats.execution_micros.Add(static_cast<uint64_t>(now_ns - batch->started_ns) / 1000);
  const size_t tasks = batch->tasks_.size();
  int64_t task_ns = 0;
  for (const std::shared_ptr<BatchTask>& task : batch->tasks_) task_ns += now_ns - task->enqueued_ns_;
  limit_.OnFinish(batch->rows_, tasks, task_ns, in_flight_ > 0 || !active_.empty() || tasks > 1, now_ns);
  Linger(*batch, now_ns);
  if (batch->unanswered == 0) return;

  if (!status.ok()) {
    ++group.stats.failed_batches;
    const bool memory = status.code() == Code::kResourceExhausted;
    if (batch->tasks_.size() > 1 && (memory || queue.runner->may_bisect(status.code()))) {
      if (memory) {
        group.memory_rows = std::max<int64_t>(batch->rows_ / 2, 1);
        group.memory_until_ns = now_ns + kMemoryBackOffNs;
      }
      Bisect(batch.get(), now_ns);
      return;
    }
  }
  actions->answers.reserve(actions->answers.size() + batch->unanswered);
  int64_t first_row = 0;
  for (const std::shared_ptr<BatchTask>& task : batch->tasks_) {
    if (task->state_ == BatchTask::State::kRunning) {
      Answered(task.get(), &group);
      actions->answers.push_back({task, status, batch, first_row});
    }
    first_row += task->rows;
  }
  batch->unanswered = 0;
}

void BatchScheduler::Linger(const ScheduledBatch& batch, int64_t now_ns) {
  BatchGroup& group = *batch.queue->group;
  if (!limit_.lingers() || group.in_loop) return;
  group.callers = group.unanswered;
  group.linger_until_ns = now_ns + (now_ns - batch.started_ns) / kLingerPart;
}

void BatchScheduler::Bisect(ScheduledBatch* batch, int64_t now_ns) {
  BatchGroup& group = *batch->queue->group;
  ++group.stats.bisected_batches;
  std::vector<std::shared_ptr<BatchTask>> left;
  for (const std::shared_ptr<BatchTask>& task : batch->tasks_) {
    if (task->state_ == BatchTask::State::kRunning) left.push_back(task);
  }
  if (group.idle()) Activate(&group);
  // Every part is smaller than the whole: a batch of n tasks causes at most 2·n - 1 runs.
  const size_t half = (left.size() + 1) / 2;
  for (size_t begin : {half, size_t{0}}) {  // the first half ends in front
    const size_t end = begin == 0 ? half : left.size();
    if (begin == end) continue;
    auto part = std::make_shared<ScheduledBatch>();
    part->queue = batch->queue;
    part->unanswered = end - begin;
    for (size_t i = begin; i < end; ++i) {
      left[i]->batch_ = part.get();
      part->tasks_.push_back(left[i]);
    }
    group.retries.push_front(std::move(part));
  }
  batch->unanswered = 0;
}

void BatchScheduler::RelaxMemory(BatchGroup* group, int64_t now_ns) {
  if (group->memory_rows == 0 || now_ns < group->memory_until_ns) return;
  group->memory_rows *= 2;
  group->memory_until_ns = now_ns + kMemoryBackOffNs;
  if (group->memory_rows >= group->policy.max_batch_size) group->memory_rows = 0;
}

}  // namespace tessera
