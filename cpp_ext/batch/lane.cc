#include "cpp_ext/batch/lane.h"

#include <utility>

#include "cpp_ext/batch/lane_impl.h"

namespace tessera {

using Actions = BatchScheduler::Actions;

BatchLane::BatchLane(std::string name, LaneOptions options) : impl_(std::make_unique<Impl>(std::move(name), options)) {}

BatchLane::~BatchLane() = default;

std::shared_ptr<BatchGroup> BatchLane::AddGroup(std::string name, bool in_loop) {
  return std::make_shared<BatchGroup>(std::move(name), in_loop);
}

Status BatchLane::SetPolicy(BatchGroup& group, BatchPolicy policy) {
  Status status;
  impl_->Enter(nullptr, [&](int64_t, Actions*) { status = impl_->scheduler.SetPolicy(&group, std::move(policy)); });
  return status;
}

BatchGroupStats BatchLane::stats(const BatchGroup& group) const {
  return impl_->Locked([&] { return group.stats; });
}

std::shared_ptr<BatchQueue> BatchLane::AddQueue(const std::shared_ptr<BatchGroup>& group,
                                                std::shared_ptr<BatchRunner> runner) {
  return std::make_shared<BatchQueue>(group, std::move(runner));
}

void BatchLane::Enqueue(const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<BatchTask> task) {
  impl_->Enter(task.get(),
               [&](int64_t now_ns, Actions* actions) { impl_->scheduler.Enqueue(queue, &task, 1, now_ns, actions); });
}

void BatchLane::Enqueue(const std::shared_ptr<BatchQueue>& queue, std::vector<std::shared_ptr<BatchTask>> tasks) {
  impl_->Enter(nullptr, [&](int64_t now_ns, Actions* actions) {
    impl_->scheduler.Enqueue(queue, tasks.data(), tasks.size(), now_ns, actions);
  });
}

void BatchLane::Cancel(const std::shared_ptr<BatchTask>& task, Status status) {
  impl_->Enter(nullptr, [&](int64_t, Actions* actions) { impl_->scheduler.Cancel(task, std::move(status), actions); });
}

void BatchLane::Finish(const std::shared_ptr<Batch>& batch, Status status) {
  impl_->Enter(nullptr,
               [&](int64_t now_ns, Actions* actions) { impl_->scheduler.Finish(batch, status, now_ns, actions); });
}

void BatchLane::EnterLoop(BatchGroup& group) {
  impl_->Locked([&] { impl_->scheduler.EnterLoop(&group); });
}

void BatchLane::LeaveLoop(BatchGroup& group) {
  // Those that are left may be all that wait.
  impl_->Enter(nullptr, [&](int64_t, Actions*) { impl_->scheduler.LeaveLoop(&group); });
}

void BatchLane::BeginBurst() { Impl::BeginBurst(); }
bool BatchLane::BurstPending() { return Impl::BurstPending(); }
void BatchLane::EndBurst() { Impl::EndBurst(); }

LaneStats BatchLane::stats() const {
  return impl_->Locked([&] {
    LaneStats stats = impl_->scheduler.stats(MonotonicNs());
    stats.timer_wakeups = impl_->timer_wakeups;
    return stats;
  });
}

const std::string& BatchLane::name() const { return impl_->name; }

}  // namespace tessera
