// A failure reaches those whose fault it is.
#include <gtest/gtest.h>

#include <set>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kSecond = SteppedScheduler::kSecond;

// Runs batches until there are none; one with a task in `bad` fails. Returns how many ran.
int RunAll(SteppedScheduler* s, const std::set<BatchTask*>& bad) {
  int runs = 0;
  while (auto batch = s->Start()) {
    bool fails = false;
    for (const auto& task : batch->tasks()) fails = fails || bad.count(task.get()) > 0;
    s->Finish(batch, fails ? Bad() : Status());
    ++runs;
  }
  return runs;
}

TEST(BatchFailure, OneBadTaskFailsAlone) {
  SteppedScheduler s;
  auto queue = s.Queue();
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 32; ++i) tasks.push_back(s.Enqueue(queue, 1 + i % 3));
  const int runs = RunAll(&s, {tasks[13].get()});
  EXPECT_LE(runs, 11 + 1);  // two per halving, and the whole
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(tasks[i]->answers, 1);
    EXPECT_EQ(tasks[i]->code, i == 13 ? Code::kInvalidArgument : Code::kOk) << i;
  }
  EXPECT_EQ(tasks[13]->message, "bad row");
  EXPECT_EQ(queue->group->stats.close_reasons[static_cast<size_t>(CloseReason::kBisect)],
            static_cast<uint64_t>(runs - 1));
  EXPECT_GE(queue->group->stats.bisected_batches, 5u);
}

TEST(BatchFailure, BisectingHasABudget) {
  for (const int count : {2, 3, 17, 64}) {
    SteppedScheduler s;
    auto queue = s.Queue();
    std::set<BatchTask*> bad;
    std::vector<std::shared_ptr<FakeTask>> tasks;
    for (int i = 0; i < count; ++i) {
      tasks.push_back(s.Enqueue(queue));
      bad.insert(tasks.back().get());
    }
    EXPECT_LE(RunAll(&s, bad), 2 * count);
    for (const auto& task : tasks) EXPECT_EQ(task->answers, 1);
  }
}

TEST(BatchFailure, PartsRunBeforeOtherWorkOfTheGroup) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto a = s.Enqueue(queue), b = s.Enqueue(queue);
  auto batch = s.Start();
  s.Enqueue(queue);
  s.Finish(batch, Bad());
  EXPECT_EQ(s.Run(1)->tasks()[0], a);
  EXPECT_EQ(s.last_reason, CloseReason::kBisect);
  EXPECT_EQ(s.Run(1)->tasks()[0], b);
  EXPECT_EQ(s.Run(1)->tasks().size(), 1u);
}

TEST(BatchFailure, OtherCodesFailAllOnce) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto a = s.Enqueue(queue), b = s.Enqueue(queue);
  s.Run(1, Status(Code::kUnavailable, "device is gone"));
  EXPECT_EQ(a->code, Code::kUnavailable);
  EXPECT_EQ(b->message, "device is gone");
  EXPECT_TRUE(s.scheduler.idle());
  EXPECT_EQ(queue->group->stats.failed_batches, 1u);
  EXPECT_EQ(queue->group->stats.bisected_batches, 0u);
}

TEST(BatchFailure, ATaskThatLeftMayHaveBeenTheBadOne) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto bad = s.Enqueue(queue), good = s.Enqueue(queue);
  auto batch = s.Start();
  s.Cancel(bad);
  s.Finish(batch, Bad());
  EXPECT_EQ(s.Run(1)->tasks().size(), 1u);
  EXPECT_EQ(good->code, Code::kOk);
}

TEST(BatchFailure, TasksLeaveBetweenTheParts) {
  SteppedScheduler s;
  auto queue = s.Queue();
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 4; ++i) {
    tasks.push_back(MakeTask());
    tasks[i]->deadline_ns = i == 3 ? kSecond : TESSERA_NO_DEADLINE;
    s.Enqueue(queue, tasks[i]);
  }
  // In order of urgency: 3, 0 | 1, 2.
  s.Run(1, Bad());
  s.Cancel(tasks[1]);
  s.now_ns = kSecond;
  s.Expire();
  EXPECT_EQ(s.Run(1)->tasks()[0], tasks[0]);
  s.Cancel(tasks[2]);
  EXPECT_EQ(s.Start(), nullptr);
  EXPECT_TRUE(s.scheduler.idle());
  for (const auto& task : tasks) EXPECT_EQ(task->answers, 1);
  EXPECT_EQ(tasks[3]->code, Code::kDeadlineExceeded);
  EXPECT_EQ(queue->group->stats.expired_running, 1u);
}

TEST(BatchFailure, OutOfMemoryHalvesTheBatchForAWhile) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_batch_size = 32;
  auto queue = s.Queue(policy);
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 96; ++i) tasks.push_back(s.Enqueue(queue));
  EXPECT_EQ(s.Run(1, Status(Code::kResourceExhausted, "no memory"))->rows(), 32);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(s.Run(1)->rows(), 16);
  for (const auto& task : tasks) EXPECT_EQ(task->code, Code::kOk);
  s.now_ns += 11 * kSecond;
  for (int i = 0; i < 40; ++i) s.Enqueue(queue);
  EXPECT_EQ(s.Run(1)->rows(), 32);
}

TEST(BatchFailure, OutOfMemoryKeepsToAllowedSizes) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_batch_size = 32;
  policy.allowed_batch_sizes = {4, 12, 32};
  auto queue = s.Queue(policy);
  for (int i = 0; i < 56; ++i) s.Enqueue(queue);
  s.Run(1, Status(Code::kResourceExhausted, "no memory"));
  s.Run(1);
  s.Run(1);  // the halves
  EXPECT_EQ(s.Run(1)->padded_rows(), 12);
  EXPECT_EQ(s.Run(1)->padded_rows(), 12);
  EXPECT_TRUE(s.scheduler.idle());
}

TEST(BatchFailure, ATaskThatNeedsMoreMemoryThanThereIsFails) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto task = s.Enqueue(queue, 64);
  s.Run(1, Status(Code::kResourceExhausted, "no memory"));
  EXPECT_EQ(task->code, Code::kResourceExhausted);
  EXPECT_TRUE(s.scheduler.idle());
}

}  // namespace
}  // namespace tessera
