// Tasks that one thread brings while it has more requests at hand.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "cpp_ext/batch/lane.h"
#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

LaneOptions AllShort() {
  LaneOptions options;
  options.inline_budget_ns = int64_t{3600} * 1'000'000'000;
  options.max_in_flight_batches = 1;
  return options;
}

struct Fixture {
  explicit Fixture(LaneOptions options = AllShort()) : lane("test", options) {
    runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true);
    group = lane.AddGroup("m:1/g", false);
    queue = lane.AddQueue(group, runner);
    Warm(&lane, queue);
    warm_runs = runner->runs;
  }
  std::shared_ptr<FakeTask> Bring() {
    auto task = MakeTask();
    lane.Enqueue(queue, task);
    return task;
  }

  BatchLane lane;
  std::shared_ptr<InlineRunner> runner;
  std::shared_ptr<BatchGroup> group;
  std::shared_ptr<BatchQueue> queue;
  int warm_runs = 0;
};

TEST(BatchBurst, TasksOfOneThreadShareABatchAtItsEnd) {
  Fixture f;
  BatchLane::BeginBurst();
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(f.Bring());
  EXPECT_EQ(tasks[0]->answers, 0);
  EXPECT_TRUE(BatchLane::BurstPending());
  BatchLane::EndBurst();
  for (const auto& task : tasks) {
    EXPECT_EQ(task->answers, 1);
    EXPECT_EQ(task->ended_on, std::this_thread::get_id());
  }
  EXPECT_EQ(f.runner->runs, f.warm_runs + 1);
}

TEST(BatchBurst, NothingWaitsForAnEndThatNobodyNeeds) {
  Fixture f;
  BatchLane::BeginBurst();
  EXPECT_FALSE(BatchLane::BurstPending());
  BatchLane::EndBurst();
  auto after = f.Bring();  // at once, as without a burst
  EXPECT_EQ(after->answers, 1);
}

TEST(BatchBurst, AFullBatchDoesNotWaitForTheEnd) {
  Fixture f;
  BatchPolicy policy;
  policy.max_batch_size = 2;
  ASSERT_TRUE(f.lane.SetPolicy(*f.group, policy).ok());
  BatchLane::BeginBurst();
  auto first = f.Bring();
  auto second = f.Bring();
  Await([&] { return first->answers == 1 && second->answers == 1; });
  BatchLane::EndBurst();
}

TEST(BatchBurst, ALongBatchGoesToAWorker) {
  LaneOptions options = AllShort();
  options.inline_budget_ns = 0;
  Fixture f(options);
  BatchLane::BeginBurst();
  auto task = f.Bring();
  BatchLane::EndBurst();
  Await([&] { return task->answers == 1; });
  EXPECT_NE(task->ended_on, std::this_thread::get_id());
}

TEST(BatchBurst, IsOverSoonEvenIfRequestsKeepComing) {
  Fixture f;
  BatchLane::BeginBurst();
  auto task = f.Bring();
  Await([] { return !BatchLane::BurstPending(); });  // the poller ends it then
  BatchLane::EndBurst();
  EXPECT_EQ(task->answers, 1);
}

TEST(BatchBurst, TasksOfTwoLanesAreAllAnswered) {
  Fixture one, other;
  BatchLane::BeginBurst();
  auto first = one.Bring();
  auto second = other.Bring();
  BatchLane::EndBurst();
  Await([&] { return first->answers == 1 && second->answers == 1; });
}

TEST(BatchBurst, WhatIsCancelledMeanwhileDoesNotRun) {
  Fixture f;
  BatchLane::BeginBurst();
  auto task = f.Bring();
  f.lane.Cancel(task, Status(Code::kCancelled, "cancelled"));
  EXPECT_EQ(task->code, Code::kCancelled);
  BatchLane::EndBurst();
  EXPECT_EQ(f.runner->runs, f.warm_runs);
}

}  // namespace
}  // namespace tessera
