// When batches will have ended, and what is late for them.
#include <algorithm>
#include <cassert>

#include "cpp_ext/batch/scheduler.h"

namespace tessera {
namespace {

constexpr int64_t kUnknown = CostModel::kUnknown;
constexpr int64_t kNever = TESSERA_NO_DEADLINE;

// A cost that nothing has confirmed for so long, or for so many times itself, is no reason to refuse a task: were all
// refused because of one slow spell, it would never be learned that it is over.
constexpr int64_t kProvenNs = 250'000'000;
constexpr int64_t kProvenCosts = 2;

// A prediction is no promise: where nobody else wants the place, what would need a third less time may try.
int64_t AtBest(int64_t need_ns) { return need_ns / 3 * 2; }

}  // namespace

int64_t BatchScheduler::BeginNs(int64_t now_ns) const {
  int64_t end_ns = now_ns;
  for (const std::shared_ptr<ScheduledBatch>& batch : flying_) {
    if (batch->predicted_ns != kUnknown) end_ns = std::max(end_ns, batch->end_ns);
  }
  return now_ns + static_cast<int64_t>(overlap_.part() * static_cast<double>(end_ns - now_ns));
}

void BatchScheduler::Predict(ScheduledBatch* batch, int64_t now_ns) {
  BatchQueue& queue = *batch->queue;
  batch->predicted_ns = queue.cost.AtLeast(batch->padded_rows_);
  batch->end_ns = batch->predicted_end_ns = BeginNs(now_ns) + std::max<int64_t>(batch->predicted_ns, 0);
  batch->ahead_ended_ns = now_ns;
  queue.proven_ns = now_ns;
  flying_.push_back(batch->shared_from_this());
}

void BatchScheduler::LearnFrom(ScheduledBatch* batch, bool ok, int64_t now_ns) {
  BatchQueue& queue = *batch->queue;
  const auto place =
      std::find_if(flying_.begin(), flying_.end(), [batch](const auto& flying) { return flying.get() == batch; });
  assert(place != flying_.end());
  const bool overtook = place != flying_.begin();
  const bool known = batch->predicted_ns != kUnknown;
  const int64_t later_ns =
      known ? static_cast<int64_t>(overlap_.part() * static_cast<double>(now_ns - batch->end_ns)) : 0;
  for (auto behind = place + 1; behind != flying_.end(); ++behind) {
    (*behind)->end_ns += later_ns;
    (*behind)->ahead_ended_ns = now_ns;
  }
  flying_.erase(place);
  queue.proven_ns = now_ns;
  if (!ok) return;  // it may have ended early

  const int64_t ns = now_ns - batch->started_ns;
  // One that overtook another did not have to wait for it.
  const int64_t ahead_ns = overtook ? ns : batch->ahead_ended_ns - batch->started_ns;
  overlap_.Learn(batch->predicted_ns, ahead_ns, ns);
  const int64_t waited_ns = overtook ? 0 : static_cast<int64_t>(overlap_.part() * static_cast<double>(ahead_ns));
  queue.cost.Learn(batch->padded_rows_, ns - waited_ns);
  if (known) queue.error.Learn(batch->predicted_end_ns - batch->started_ns, ns);
}

int64_t BatchScheduler::ExpectedWaitNs(const BatchQueue& queue, int64_t rows_ahead, int64_t now_ns) const {
  const BatchGroup& group = *queue.group;
  const int64_t max_rows = group.MaxRows();
  const int64_t full_ns = queue.cost.AtLeast(PaddedRows(group.policy, max_rows));
  if (full_ns == kUnknown) return kUnknown;
  // Of those in flight together each takes its part of the device, or has it to itself.
  const double in_flight = static_cast<double>(std::max<int64_t>(limit_.limit(), group.policy.max_in_flight_batches));
  const double part = overlap_.part() + (1 - overlap_.part()) / in_flight;
  return BeginNs(now_ns) - now_ns + static_cast<int64_t>(static_cast<double>(rows_ahead / max_rows * full_ns) * part);
}

bool BatchScheduler::IsProven(const BatchQueue& queue, int64_t cost_ns, int64_t now_ns) const {
  return now_ns - queue.proven_ns <= std::max(kProvenNs, kProvenCosts * cost_ns);
}

Status BatchScheduler::CheckDeadline(const BatchQueue& queue, const BatchTask& task, int64_t rows, int64_t now_ns) {
  BatchGroup& group = *queue.group;
  if (task.deadline_ns <= now_ns) {
    ++group.stats.expired_queued;
    return Status(Code::kDeadlineExceeded, group.name + ": the deadline had passed before the task could be queued");
  }
  const int64_t max_rows = group.MaxRows();
  // Only what would be before it for certain counts: all that waits, if it comes last, else nothing.
  const Urgency urgency = {task.priority < 0 ? group.policy.priority : task.priority, task.deadline_ns, UINT64_MAX};
  const bool last = queue.empty() || queue.tasks().rbegin()->first < urgency;
  const bool backlog = last && queue.rows() >= max_rows;
  const int64_t execution_ns =
      queue.cost.AtLeast(PaddedRows(group.policy, backlog ? max_rows : std::min(rows, max_rows)));
  if (execution_ns == kUnknown || !IsProven(queue, execution_ns, now_ns)) return Status();
  const int64_t wait_ns = last ? ExpectedWaitNs(queue, queue.rows(), now_ns) : 0;
  const int64_t left_ns = task.deadline_ns - now_ns;
  const int64_t need_ns = wait_ns + execution_ns;
  if ((backlog ? need_ns + queue.error.MarginNs(need_ns) : AtBest(need_ns)) <= left_ns) return Status();
  ++group.stats.expired_queued;
  return Status(Code::kDeadlineExceeded, group.name + ": the deadline is in " + Micros(left_ns) +
                                             ", but the task would wait " + Micros(wait_ns) + " and run " +
                                             Micros(execution_ns));
}

void BatchScheduler::DropLate(int64_t now_ns, Actions* actions) {
  while (!deadlines_.empty() && in_flight_ < most_in_flight_) {
    const Next next = Look(now_ns);
    if (next.queue == nullptr || next.reason == CloseReason::kBisect) return;
    if (!DropLate(next.queue, now_ns, actions)) return;
  }
}

bool BatchScheduler::DropLate(BatchQueue* queue, int64_t now_ns, Actions* actions) {
  if (queue->EarliestDeadlineNs() == kNever) return false;
  BatchGroup& group = *queue->group;
  const int64_t max_rows = group.MaxRows();
  const int64_t full_ns = queue->cost.AtLeast(PaddedRows(group.policy, max_rows));
  if (full_ns == kUnknown || !IsProven(*queue, full_ns, now_ns)) return false;
  const int64_t ahead_ns = BeginNs(now_ns) - now_ns;
  const int64_t full_end_ns = now_ns + ahead_ns + full_ns + queue->error.MarginNs(ahead_ns + full_ns);
  std::vector<std::pair<std::shared_ptr<BatchTask>, int64_t>> late;  // and when it would end
  int64_t kept_rows = 0, rows = queue->rows();
  for (const auto& [urgency, task] : queue->tasks()) {
    // With more waiting than fits, a place is for one that makes it in a full batch; else for one that could make it.
    const int64_t need_ns = ahead_ns + queue->cost.AtLeast(PaddedRows(group.policy, task->rows));
    const int64_t end_ns = rows > max_rows ? full_end_ns : now_ns + (in_flight_ > 0 ? need_ns : AtBest(need_ns));
    if (task->deadline_ns < end_ns) {
      late.emplace_back(task, end_ns);
      rows -= task->rows;
    } else {
      kept_rows += task->rows;
      if (kept_rows >= max_rows) break;
    }
  }
  for (auto& [task, end_ns] : late) {
    ++group.stats.expired_queued;
    Drop(task,
         Status(Code::kDeadlineExceeded,
                group.name + ": the task would end " + Micros(end_ns - task->deadline_ns) + " after its deadline"),
         actions);
  }
  return !late.empty();
}

}  // namespace tessera
