// Many threads, sizes, failures, deadlines, cancellations and changes at once; meant for the sanitizers.
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = 1'000, kMilli = 1'000'000;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 300;
#else
constexpr int kRounds = 1500;
#endif

// Every row has a tag; what a batch answers is the tags in row order.
class TaggedTask final : public BatchTask {
 public:
  TaggedTask(int64_t rows, uint64_t tag, std::atomic<int64_t>* unanswered) : tag(tag), unanswered_(unanswered) {
    this->rows = rows;
    bytes = rows * 8;
    unanswered_->fetch_add(1);
  }
  void Done(const Status& status, Batch* batch, int64_t first_row) override;

  const uint64_t tag;
  std::atomic<int> answers{0};
  std::atomic<bool> wrong{false};
  std::function<void()> then;

 private:
  std::atomic<int64_t>* const unanswered_;
};

struct Tags final : BatchResult {
  std::vector<uint64_t> rows;
};

void TaggedTask::Done(const Status& status, Batch* batch, int64_t first_row) {
  if (status.ok()) {
    const auto& tags = static_cast<const Tags&>(*batch->result);
    for (int64_t i = 0; i < rows; ++i) {
      if (tags.rows[static_cast<size_t>(first_row + i)] != tag + static_cast<uint64_t>(i)) wrong = true;
    }
  }
  answers.fetch_add(1);
  if (then) then();
  unanswered_->fetch_sub(1);
}

// Answers with the tags; a tag that is a multiple of 97 fails its batch.
void End(BatchLane* lane, const std::shared_ptr<Batch>& batch) {
  auto tags = std::make_unique<Tags>();
  bool bad = false;
  for (const auto& task : batch->tasks()) {
    const uint64_t tag = static_cast<const TaggedTask&>(*task).tag;
    bad = bad || tag % 97 == 0;
    for (int64_t i = 0; i < task->rows; ++i) tags->rows.push_back(tag + static_cast<uint64_t>(i));
  }
  batch->result = std::move(tags);
  lane->Finish(batch, bad ? Bad() : Status());
}

// Ends batches on a thread of its own, as an accelerator does.
class Device {
 public:
  ~Device() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void Start(BatchLane* lane, std::shared_ptr<Batch> batch) {
    std::lock_guard<std::mutex> lock(mu_);
    batches_.emplace_back(lane, std::move(batch));
    changed_.notify_one();
  }

 private:
  void Main() {
    std::unique_lock<std::mutex> lock(mu_);
    while (true) {
      changed_.wait(lock, [this] { return stopped_ || !batches_.empty(); });
      if (batches_.empty()) return;
      auto [lane, batch] = std::move(batches_.front());
      batches_.pop_front();
      lock.unlock();
      End(lane, batch);
      batch.reset();
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::pair<BatchLane*, std::shared_ptr<Batch>>> batches_;  // guarded by mu_
  bool stopped_ = false;                                               // guarded by mu_
  std::thread thread_{[this] { Main(); }};
};

// Ends batches on `device`, or on the stack of Run if there is none.
class TagRunner final : public BatchRunner {
 public:
  TagRunner(BatchLane* lane, Device* device) : lane_(lane), device_(device) {}
  void Run(std::shared_ptr<Batch> batch) override {
    device_ == nullptr ? End(lane_, batch) : device_->Start(lane_, std::move(batch));
  }
  void Cancel(Batch* batch) override {}
  bool occupies_thread() const override { return device_ == nullptr; }
  bool may_bisect(Code code) const override { return code == Code::kInvalidArgument; }

 private:
  BatchLane* const lane_;
  Device* const device_;
};

BatchPolicy RandomPolicy(std::mt19937* random) {
  BatchPolicy policy;
  policy.max_batch_size = 4 + (*random)() % 60;
  policy.batch_timeout_ns = (*random)() % 3 == 0 ? (*random)() % 300 * kMicro : 0;
  policy.max_enqueued_rows = 16 + (*random)() % 500;
  policy.max_in_flight_batches = (*random)() % 4;
  policy.priority = (*random)() % 2;
  policy.weight = 1 + (*random)() % 3;
  return policy;
}

void Stress(const LaneOptions& options) {
  std::atomic<int64_t> unanswered{0};
  std::vector<std::shared_ptr<TaggedTask>> all[4];
  {
    Device device;
    BatchLane lane("stress", options);
    const std::shared_ptr<TagRunner> runners[] = {std::make_shared<TagRunner>(&lane, nullptr),
                                                  std::make_shared<TagRunner>(&lane, &device)};
    std::vector<std::shared_ptr<BatchGroup>> groups;
    std::vector<std::shared_ptr<BatchQueue>> queues;
    for (int i = 0; i < 4; ++i) {
      groups.push_back(lane.AddGroup("m:1/g" + std::to_string(i), i == 3));
      queues.push_back(lane.AddQueue(groups.back(), runners[i % 2]));
      queues.push_back(lane.AddQueue(groups.back(), runners[i % 2]));
    }
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        const auto own_queue = lane.AddQueue(groups[t], runners[t % 2]);  // dropped while tasks wait in it
        for (int round = 0; round < kRounds; ++round) {
          const size_t chosen = random() % (queues.size() + 1);
          const auto& queue = chosen == queues.size() ? own_queue : queues[chosen];
          auto task = std::make_shared<TaggedTask>(1 + random() % 5, random(), &unanswered);
          if (random() % 3 == 0) task->deadline_ns = MonotonicNs() + random() % 2000 * kMicro;
          all[t].push_back(task);
          if (random() % 4 == 0) {  // a loop of a few steps
            lane.EnterLoop(*groups[3]);
            task->then = [&lane, queue = queues[6], group = groups[3], &unanswered, step = 0]() mutable {
              if (++step > 1) return;
              auto next = std::make_shared<TaggedTask>(1, 1, &unanswered);
              next->then = [&lane, group] { lane.LeaveLoop(*group); };
              lane.Enqueue(queue, next);
            };
          }
          if (random() % 8 == 0) {
            auto second = std::make_shared<TaggedTask>(2, random(), &unanswered);
            all[t].push_back(second);
            lane.Enqueue(queue, {task, second});
          } else {
            lane.Enqueue(queue, task);
          }
          if (random() % 5 == 0) {
            lane.Cancel(all[t][random() % all[t].size()], Status(Code::kCancelled, "random"));
          }
          if (random() % 20 == 0) (void)lane.SetPolicy(*groups[random() % 4], RandomPolicy(&random));
          if (random() % 50 == 0) {
            (void)lane.stats();
            (void)lane.stats(*groups[0]);
          }
          if (random() % 10 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(unanswered, 0);
  for (const auto& tasks : all) {
    for (const auto& task : tasks) {
      ASSERT_EQ(task->answers, 1);
      ASSERT_FALSE(task->wrong);
    }
  }
}

TEST(BatchStress, Adaptive) { Stress({}); }
TEST(BatchStress, OneInFlight) {
  LaneOptions options;
  options.max_in_flight_batches = 1;
  Stress(options);
}
TEST(BatchStress, ManyInFlight) {
  LaneOptions options;
  options.max_in_flight_batches = 6;
  Stress(options);
}

TEST(BatchStress, LanesComeAndGo) {
  for (int i = 0; i < 200; ++i) {
    BatchLane lane("short", {});
    auto runner = std::make_shared<InlineRunner>(&lane, i % 2 == 0);
    auto group = lane.AddGroup("m:1/g", false);
    auto queue = lane.AddQueue(group, runner);
    for (int j = 0; j < i % 5; ++j) lane.Enqueue(queue, MakeTask());
  }
}

TEST(BatchStress, ALoopOfManyRequestsKeepsTogether) {
  BatchLane lane("loop", {});
  auto runner = std::make_shared<InlineRunner>(&lane, /*occupies_thread=*/true, [](const Batch&) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    return Status();
  });
  auto group = lane.AddGroup("m:1/cell", true);
  auto queue = lane.AddQueue(group, runner);
  std::atomic<int> left{16};
  std::function<void(int)> step = [&](int steps) {
    if (steps == 0) {
      lane.LeaveLoop(*group);
      left.fetch_sub(1);
      return;
    }
    auto task = MakeTask();
    task->then = [&step, steps] { step(steps - 1); };
    lane.Enqueue(queue, task);
  };
  std::vector<std::thread> requests;
  for (int i = 0; i < 16; ++i) {
    requests.emplace_back([&] {
      lane.EnterLoop(*group);
      step(50);
    });
  }
  for (std::thread& request : requests) request.join();
  for (int i = 0; i < 10'000 && left > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(left, 0);
  const BatchGroupStats stats = lane.stats(*group);
  EXPECT_EQ(stats.rows, 16u * 50);
  EXPECT_LE(stats.batches, 400u);  // unbatched it would be 800, in step 50
}

}  // namespace
}  // namespace tessera
