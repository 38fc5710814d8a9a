#include "cpp_ext/batch/queue.h"

#include <algorithm>
#include <cassert>

namespace tessera {

int64_t BatchGroup::MaxRows() const {
  if (memory_rows == 0) return policy.max_batch_size;
  const std::vector<int64_t>& sizes = policy.allowed_batch_sizes;
  if (sizes.empty()) return std::min(memory_rows, policy.max_batch_size);
  const auto above = std::upper_bound(sizes.begin(), sizes.end(), memory_rows);
  return above == sizes.begin() ? sizes.front() : *(above - 1);
}

void BatchQueue::Push(std::shared_ptr<BatchTask> task) {
  BatchTask* const added = task.get();
  rows_ += added->rows;
  if (added->deadline_ns <= deadline_ns_) {
    deadline_ns_ = added->deadline_ns;
    deadline_known_ = true;
  }
  added->queue_ = this;
  added->older_ = newest_;
  (newest_ == nullptr ? oldest_ : newest_->newer_) = added;
  newest_ = added;
  if (young_ == nullptr) young_ = added;
  // Most tasks are the least urgent ones when they come.
  tasks_.emplace_hint(tasks_.end(), UrgencyOf(*added), std::move(task));
}

std::shared_ptr<BatchTask> BatchQueue::Remove(BatchTask* task) {
  const auto found = tasks_.find(UrgencyOf(*task));
  assert(found != tasks_.end() && task->queue_ == this);
  std::shared_ptr<BatchTask> removed = std::move(found->second);
  tasks_.erase(found);
  rows_ -= task->rows;
  if (task->deadline_ns == deadline_ns_ && deadline_ns_ != TESSERA_NO_DEADLINE) deadline_known_ = false;
  if (young_ == task) young_ = task->newer_;
  (task->older_ == nullptr ? oldest_ : task->older_->newer_) = task->newer_;
  (task->newer_ == nullptr ? newest_ : task->newer_->older_) = task->older_;
  task->older_ = task->newer_ = nullptr;
  task->queue_ = nullptr;
  if (tasks_.empty()) {
    deadline_ns_ = TESSERA_NO_DEADLINE;
    deadline_known_ = true;
  }
  return removed;
}

int64_t BatchQueue::EarliestDeadlineNs() {
  if (!deadline_known_) {
    deadline_ns_ = TESSERA_NO_DEADLINE;
    for (const auto& [urgency, task] : tasks_) deadline_ns_ = std::min(deadline_ns_, task->deadline_ns);
    deadline_known_ = true;
  }
  return deadline_ns_;
}

void BatchQueue::Age(int64_t until_ns) {
  for (; young_ != nullptr && young_->enqueued_ns_ <= until_ns; young_ = young_->newer_) Reorder(young_, 0);
}

void BatchQueue::Reclassify() {
  for (BatchTask* task = young_; task != nullptr; task = task->newer_) {
    if (task->priority < 0) Reorder(task, group->policy.priority);
  }
}

void BatchQueue::Reorder(BatchTask* task, int32_t to_class) {
  if (task->class_ == to_class) return;
  auto node = tasks_.extract(UrgencyOf(*task));
  task->class_ = to_class;
  node.key() = UrgencyOf(*task);
  tasks_.insert(std::move(node));
}

int64_t PaddedRows(const BatchPolicy& policy, int64_t rows) {
  const std::vector<int64_t>& sizes = policy.allowed_batch_sizes;
  const auto size = std::lower_bound(sizes.begin(), sizes.end(), rows);
  return size == sizes.end() ? rows : *size;
}

namespace {

// The most urgent tasks that fit into `max_rows`, and end in time if all that wait would fit.
Selection Fit(const BatchQueue& queue, int64_t max_rows, int64_t begin_ns) {
  Selection fit;
  // With more waiting than fits, smaller batches would only make more of them late.
  const bool in_time = queue.rows() <= max_rows;
  int64_t deadline_ns = TESSERA_NO_DEADLINE;  // the earliest of those that could be met
  const auto end_ns = [&](int64_t rows) {
    return begin_ns + std::max<int64_t>(queue.cost.AtLeast(PaddedRows(queue.group->policy, rows)), 0);
  };
  for (const auto& [urgency, task] : queue.tasks()) {
    if (fit.rows + task->rows > max_rows) break;
    if (in_time) {
      if (task->deadline_ns != TESSERA_NO_DEADLINE && end_ns(task->rows) <= task->deadline_ns) {
        deadline_ns = std::min(deadline_ns, task->deadline_ns);
      }
      if (fit.tasks > 0 && deadline_ns != TESSERA_NO_DEADLINE && end_ns(fit.rows + task->rows) > deadline_ns) break;
    }
    fit.rows += task->rows;
    ++fit.tasks;
  }
  fit.padded_rows = PaddedRows(queue.group->policy, fit.rows);
  return fit;
}

bool CostsLessPerRow(const CostModel& cost, const Selection& down, const Selection& up) {
  const int64_t down_ns = cost.Predict(down.padded_rows), up_ns = cost.Predict(up.padded_rows);
  if (down_ns == CostModel::kUnknown || up_ns == CostModel::kUnknown) return false;
  return static_cast<double>(down_ns) * static_cast<double>(up.rows) <
         static_cast<double>(up_ns) * static_cast<double>(down.rows);
}

}  // namespace

Selection SelectTasks(const BatchQueue& queue, int64_t begin_ns) {
  const BatchPolicy& policy = queue.group->policy;
  Selection up = Fit(queue, queue.group->MaxRows(), begin_ns);
  if (up.tasks == 0) {
    up.tasks = 1;
    up.rows = queue.tasks().begin()->second->rows;
    up.padded_rows = PaddedRows(policy, up.rows);
  }
  if (policy.padding == BatchPadding::kPadUp || up.padded_rows == up.rows) return up;
  const std::vector<int64_t>& sizes = policy.allowed_batch_sizes;
  const auto above = std::upper_bound(sizes.begin(), sizes.end(), up.rows);
  if (above == sizes.begin()) return up;
  const Selection down = Fit(queue, *(above - 1), begin_ns);
  if (down.tasks == 0) return up;
  const bool go_down = policy.padding == BatchPadding::kBatchDown
                           ? down.padded_rows - down.rows < up.padded_rows - up.rows
                           : CostsLessPerRow(queue.cost, down, up);
  return go_down ? down : up;
}

}  // namespace tessera
