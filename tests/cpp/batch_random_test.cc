// Random histories of one scheduler; what must hold after every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = SteppedScheduler::kMicro;

class History {
 public:
  explicit History(uint32_t seed) : random_(seed), s_(Options(seed)) {
    for (int i = 0; i < 4; ++i) {
      queues_.push_back(s_.Queue(RandomPolicy(), /*in_loop=*/i == 3));
      queues_.push_back(s_.Queue(queues_.back()->group));
    }
  }

  void Step() {
    switch (Below(12)) {
      case 0:
      case 1:
      case 2:
        EnqueueSome();
        break;
      case 3:
        if (auto task = RandomTask()) s_.Cancel(task);
        break;
      case 4:
        s_.now_ns += Below(300) * kMicro;
        s_.Expire();
        break;
      case 5:
      case 6:
      case 7:
        StartOne();
        break;
      case 8:
      case 9:
      case 10:
        FinishOne();
        break;
      default:
        ChangeSomething();
    }
    Check();
  }

  // Lets everything end, with the scheduler's own events alone.
  void Drain() {
    for (int64_t i = 0; !s_.scheduler.idle(); ++i) {
      ASSERT_LT(i, 1'000'000);
      while (StartOne()) {
      }
      if (!in_flight_.empty()) {
        s_.now_ns += 10 * kMicro;
        FinishOne();
        continue;
      }
      const int64_t event_ns = s_.NextEventNs();
      if (s_.scheduler.idle()) break;
      ASSERT_NE(event_ns, TESSERA_NO_DEADLINE) << "a task waits for nothing";
      ASSERT_GT(event_ns, s_.now_ns);
      s_.now_ns = event_ns;
      s_.Expire();
    }
    for (const auto& task : tasks_) ASSERT_EQ(task->answers, 1);
    for (const auto& queue : queues_) {
      EXPECT_EQ(queue->group->stats.enqueued_rows, 0);
      EXPECT_EQ(queue->group->stats.enqueued_bytes, 0);
      EXPECT_EQ(queue->group->unanswered, 0);
      EXPECT_TRUE(queue->group->idle());
      EXPECT_EQ(queue->group->in_flight, 0);
    }
  }

  size_t tasks() const { return tasks_.size(); }

 private:
  static LaneOptions Options(uint32_t seed) {
    LaneOptions options;
    options.max_in_flight_batches = seed % 3;
    options.max_priority_wait_ns = 5'000 * kMicro;
    return options;
  }

  int64_t Below(int64_t bound) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(bound)); }

  BatchPolicy RandomPolicy() {
    BatchPolicy policy;
    policy.max_batch_size = 1 + Below(16);
    if (Below(2) == 0) {
      for (int64_t size = 1 + Below(4); size < policy.max_batch_size; size *= 2) {
        policy.allowed_batch_sizes.push_back(size);
      }
      policy.allowed_batch_sizes.push_back(policy.max_batch_size);
    }
    policy.padding = static_cast<BatchPadding>(Below(3));
    policy.batch_timeout_ns = Below(2) * Below(500) * kMicro;
    policy.max_enqueued_rows = 1 + Below(64);
    policy.max_enqueued_bytes = 1 + Below(1000);
    policy.max_in_flight_batches = Below(3);
    policy.priority = static_cast<int32_t>(Below(3));
    policy.weight = 0.5 + static_cast<double>(Below(4));
    return policy;
  }

  void EnqueueSome() {
    const auto& queue = queues_[Below(static_cast<int64_t>(queues_.size()))];
    std::vector<std::shared_ptr<BatchTask>> input;
    int64_t rows = 0, bytes = 0;
    for (int64_t i = 1 + Below(4) * Below(2); i > 0; --i) {
      auto task = MakeTask(1 + Below(queue->group->policy.max_batch_size + (Below(50) == 0 ? 2 : 0)));
      task->bytes = Below(40);
      if (Below(3) == 0) task->deadline_ns = s_.now_ns + Below(2000) * kMicro;
      if (Below(4) == 0) task->priority = static_cast<int32_t>(Below(3));
      rows += task->rows;
      bytes += task->bytes;
      tasks_.push_back(task);
      input.push_back(task);
    }
    const BatchGroupStats& stats = queue->group->stats;
    const int64_t waited_rows = stats.enqueued_rows, waited_bytes = stats.enqueued_bytes;
    s_.EnqueueAll(queue, input);
    const size_t refused = static_cast<size_t>(std::count_if(
        input.begin(), input.end(), [](const auto& task) { return static_cast<FakeTask&>(*task).answers > 0; }));
    EXPECT_TRUE(refused == 0 || refused == input.size()) << "all or none";
    if (refused > 0) return;
    EXPECT_EQ(stats.enqueued_rows, waited_rows + rows);
    if (waited_rows > 0) {
      EXPECT_LE(stats.enqueued_rows, queue->group->policy.max_enqueued_rows);
      EXPECT_LE(waited_bytes + bytes, queue->group->policy.max_enqueued_bytes);
    }
  }

  std::shared_ptr<FakeTask> RandomTask() {
    if (tasks_.empty()) return nullptr;
    const size_t recent = std::min<size_t>(tasks_.size(), 100);
    return tasks_[tasks_.size() - 1 - static_cast<size_t>(Below(static_cast<int64_t>(recent)))];
  }

  bool StartOne() {
    auto batch = s_.Start();
    if (batch == nullptr) return false;
    int64_t rows = 0;
    EXPECT_FALSE(batch->tasks().empty());
    for (const auto& task : batch->tasks()) {
      EXPECT_EQ(static_cast<FakeTask&>(*task).answers, 0) << "it costs something though it was answered";
      EXPECT_TRUE(running_.insert(task.get()).second) << "it runs twice at a time";
      rows += task->rows;
    }
    EXPECT_EQ(batch->rows(), rows);
    const BatchPolicy& policy = batch->queue->group->policy;
    if (batch->tasks().size() > 1 && s_.last_reason != CloseReason::kBisect) {
      EXPECT_LE(rows, policy.max_batch_size);
    }
    EXPECT_GE(batch->padded_rows(), rows);
    if (!policy.allowed_batch_sizes.empty() && rows <= policy.max_batch_size) {
      EXPECT_TRUE(std::binary_search(policy.allowed_batch_sizes.begin(), policy.allowed_batch_sizes.end(),
                                     batch->padded_rows()));
    }
    in_flight_.push_back(std::move(batch));
    return true;
  }

  void FinishOne() {
    if (in_flight_.empty()) return;
    std::swap(in_flight_[Below(static_cast<int64_t>(in_flight_.size()))], in_flight_.back());
    const auto batch = in_flight_.back();
    in_flight_.pop_back();
    for (const auto& task : batch->tasks()) running_.erase(task.get());
    static const Code kEnds[] = {Code::kOk,        Code::kOk,          Code::kOk,
                                 Code::kCancelled, Code::kUnavailable, Code::kInvalidArgument,
                                 Code::kOk,        Code::kOk,          Code::kResourceExhausted};
    std::vector<int> answers;
    for (const auto& task : batch->tasks()) answers.push_back(static_cast<FakeTask&>(*task).answers);
    const Code code = kEnds[Below(9)];
    s_.Finish(batch, Status(code, ""));
    int64_t row = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      const auto& task = static_cast<FakeTask&>(*batch->tasks()[i]);
      if (code == Code::kOk) {
        EXPECT_EQ(task.answers, 1);
        EXPECT_TRUE(answers[i] > 0 || task.first_row == row);
      }
      row += task.rows;
    }
  }

  void ChangeSomething() {
    auto& queue = queues_[Below(static_cast<int64_t>(queues_.size()))];
    BatchGroup* const group = queue->group.get();
    switch (Below(8)) {
      case 0:
        s_.SetPolicy(queue->group, RandomPolicy());
        break;
      case 1:
        queue = s_.Queue(queue->group);  // the old one is dropped, with what waits in it
        break;
      case 2:
      case 3:
      case 4:
        s_.scheduler.EnterLoop(group);
        break;
      default:
        if (group->stats.in_loop > 0) s_.scheduler.LeaveLoop(group);
    }
  }

  void Check() {
    EXPECT_LE(in_flight_.size(), static_cast<size_t>(s_.scheduler.most_in_flight()));
    const auto task = RandomTask();
    EXPECT_TRUE(task == nullptr || task->answers <= 1);
    // Nothing is forgotten: whoever waits while the device is free has an event to wait for.
    if (!in_flight_.empty()) return;
    const BatchScheduler::Next next = s_.scheduler.Look(s_.now_ns);
    EXPECT_TRUE(s_.scheduler.idle() || next.queue != nullptr || next.event_ns != TESSERA_NO_DEADLINE);
  }

  std::mt19937 random_;
  SteppedScheduler s_;
  std::vector<std::shared_ptr<BatchQueue>> queues_;
  std::vector<std::shared_ptr<FakeTask>> tasks_;
  std::vector<std::shared_ptr<ScheduledBatch>> in_flight_;
  std::set<BatchTask*> running_;
};

TEST(BatchRandom, EveryTaskIsAnsweredOnceWhateverHappens) {
  size_t tasks = 0;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    History history(seed);
    for (int step = 0; step < 2'000; ++step) {
      history.Step();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    history.Drain();
    if (testing::Test::HasFailure()) FAIL();
    tasks += history.tasks();
  }
  EXPECT_GE(tasks, 10'000u);
}

}  // namespace
}  // namespace tessera
