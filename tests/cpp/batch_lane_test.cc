// The lane with its threads: who runs what.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "cpp_ext/batch/lane.h"
#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = 1'000, kMilli = 1'000'000;

// Whatever a slow machine makes of it, a batch counts as short.
LaneOptions AllShort(int64_t max_in_flight_batches = 0) {
  LaneOptions options;
  options.inline_budget_ns = int64_t{3600} * 1'000'000'000;
  options.max_in_flight_batches = max_in_flight_batches;
  return options;
}

TEST(BatchLane, AShortTaskAloneRunsOnTheThreadThatBringsIt) {
  for (const bool occupies : {false, true}) {
    BatchLane lane("test", AllShort());
    auto runner = std::make_shared<InlineRunner>(&lane, occupies);
    auto group = lane.AddGroup("m:1/g", false);
    auto queue = lane.AddQueue(group, runner);
    if (occupies) Warm(&lane, queue);
    auto task = MakeTask();
    lane.Enqueue(queue, task);
    EXPECT_EQ(task->answers, 1);
    EXPECT_EQ(task->ended_on, std::this_thread::get_id());
    EXPECT_GE(lane.stats(*group).inline_batches, 1u);
  }
}

TEST(BatchLane, ATaskOfUnknownOrLongDurationRunsOnAWorker) {
  LaneOptions options;
  options.inline_budget_ns = kMilli;
  BatchLane lane("test", options);
  auto runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true, [](const Batch&) {
    SleepNs(3 * kMilli);
    return Status();
  });
  auto queue = lane.AddQueue(lane.AddGroup("m:1/g", false), runner);
  for (int i = 0; i < 5; ++i) {
    auto task = MakeTask();
    lane.Enqueue(queue, task);
    Await([&] { return task->answers == 1; });
    EXPECT_NE(task->ended_on, std::this_thread::get_id());
  }
}

// Runs a loop of `steps` from this thread; returns how many of them it ran itself.
int RunLoop(BatchLane* lane, const std::shared_ptr<BatchGroup>& group, const std::shared_ptr<BatchQueue>& queue,
            int steps) {
  const std::thread::id self = std::this_thread::get_id();
  std::atomic<int> left{steps}, here{0};
  std::function<void()> step = [&] {
    if (std::this_thread::get_id() == self) here.fetch_add(1);
    if (left.fetch_sub(1) == 1) return;
    auto task = MakeTask();
    task->then = [&step] { step(); };
    lane->Enqueue(queue, task);
  };
  lane->EnterLoop(*group);
  step();
  Await([&] { return left == 0; });
  lane->LeaveLoop(*group);
  return here;
}

TEST(BatchLane, ALoopWithOneCallerStaysOnItsThread) {  // race 19: Done enqueues the next step
  for (const bool occupies : {false, true}) {
    BatchLane lane("test", AllShort());
    auto runner = std::make_shared<InlineRunner>(&lane, occupies);
    auto group = lane.AddGroup("m:1/loop", true);
    auto queue = lane.AddQueue(group, runner);
    Warm(&lane, queue);
    constexpr int kSteps = 100'000;  // deep enough to overflow the stack, if it recursed
    // A thread of the lane that has not fallen asleep yet may be faster; not time and again.
    int here = 0;
    for (int i = 0; i < 10 && here < kSteps; ++i) here = RunLoop(&lane, group, queue, kSteps);
    EXPECT_EQ(here, kSteps);
  }
}

TEST(BatchLane, AThreadThatBringsATaskDoesNotRunTheTasksOfOthers) {
  BatchLane lane("test", AllShort(1));
  const std::thread::id self = std::this_thread::get_id();
  std::shared_ptr<BatchQueue> queue;
  std::atomic<bool> armed{false};
  std::vector<std::shared_ptr<FakeTask>> others;
  auto runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true, [&](const Batch& batch) {
    // While this one runs on the caller's thread, others come.
    if (armed.exchange(false)) {
      std::thread([&] {
        for (const auto& task : others) lane.Enqueue(queue, task);
      }).join();
    }
    return Status();
  });
  queue = lane.AddQueue(lane.AddGroup("m:1/g", false), runner);
  Warm(&lane, queue);
  for (int i = 0; i < 5; ++i) others.push_back(MakeTask());
  armed = true;
  auto own = MakeTask();
  lane.Enqueue(queue, own);
  EXPECT_EQ(own->ended_on, self);
  for (const auto& task : others) {
    Await([&] { return task->answers == 1; });
    EXPECT_NE(task->ended_on, self);
  }
}

TEST(BatchLane, TheNextBatchDoesNotWaitForTheDeliveryOfTheLast) {
  LaneOptions options;
  options.max_in_flight_batches = 1;
  BatchLane lane("test", options);
  auto runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true, [](const Batch&) {
    SleepNs(2 * kMilli);
    return Status();
  });
  auto queue = lane.AddQueue(lane.AddGroup("m:1/g", false), runner);
  auto slow = MakeTask(), next = MakeTask();
  slow->then = [&] {
    lane.Enqueue(queue, next);
    Await([&] { return next->answers == 1; });  // only another thread can answer it
  };
  // The delivery has more ahead, so it cannot be the one that starts the next batch.
  auto last = MakeTask();
  lane.Enqueue(queue, std::vector<std::shared_ptr<BatchTask>>{slow, last});
  Await([&] { return last->answers == 1; });
  EXPECT_EQ(next->answers, 1);
}

TEST(BatchLane, BatchesFormWhileTheDeviceIsBusy) {
  LaneOptions options;
  options.max_in_flight_batches = 1;
  BatchLane lane("test", options);
  auto runner = std::make_shared<HeldRunner>();
  auto queue = lane.AddQueue(lane.AddGroup("m:1/g", false), runner);
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 9; ++i) {
    tasks.push_back(MakeTask());
    lane.Enqueue(queue, tasks.back());
  }
  ASSERT_EQ(runner->held(), 1u);
  lane.Finish(runner->Take(), Status());
  EXPECT_EQ(tasks[0]->answers, 1);
  ASSERT_EQ(runner->held(), 1u);
  const auto batch = runner->Take();
  EXPECT_EQ(batch->rows(), 8);
  lane.Finish(batch, Status());
  for (const auto& task : tasks) EXPECT_EQ(task->answers, 1);
}

TEST(BatchLane, ACancelledBatchIsToldToEnd) {  // pitfall: a result that nobody waits for
  BatchLane lane("test", {});
  auto runner = std::make_shared<HeldRunner>();
  auto queue = lane.AddQueue(lane.AddGroup("m:1/g", false), runner);
  auto task = MakeTask();
  lane.Enqueue(queue, task);
  lane.Cancel(task, Status(Code::kCancelled, "the client left"));
  EXPECT_EQ(task->code, Code::kCancelled);
  EXPECT_EQ(runner->cancels, 1);
  lane.Finish(runner->Take(), Status(Code::kCancelled, ""));
  EXPECT_EQ(task->answers, 1);
}

TEST(BatchLane, WhatIsQueuedFromARunOfTheSameLaneRunsLater) {  // pitfall 23
  LaneOptions options;
  options.max_in_flight_batches = 1;
  BatchLane lane("test", options);
  std::shared_ptr<BatchQueue> inner;
  auto inner_task = MakeTask();
  auto outer_runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true, [&](const Batch&) {
    lane.Enqueue(inner, inner_task);
    EXPECT_EQ(inner_task->answers, 0);
    return Status();
  });
  auto inner_runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true);
  inner = lane.AddQueue(lane.AddGroup("m:1/inner", false), inner_runner);
  auto outer = lane.AddQueue(lane.AddGroup("m:1/outer", false), outer_runner);
  auto task = MakeTask();
  lane.Enqueue(outer, task);
  Await([&] { return inner_task->answers == 1 && task->answers == 1; });
}

}  // namespace
}  // namespace tessera
