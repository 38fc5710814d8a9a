// More than the device can do: what is answered in time, and what the device runs for nobody. Simulated: the scheduler,
// a clock, a device, and arrivals at random (Poisson) from a fixed seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <random>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMilli = SteppedScheduler::kMilli, kSecond = SteppedScheduler::kSecond;
constexpr int64_t kMaxBatchSize = 32, kBatchNs = 5 * kMilli, kRowNs = kMilli / 5;
constexpr double kCapacity = 1e9 * kMaxBatchSize / (kBatchNs + kMaxBatchSize * kRowNs);  // rows a second

struct Load {
  double rate = 0;                                // rows a second
  std::vector<int64_t> deadlines_ns;              // of the tasks, at random
  double jitter = 0;                              // the device needs this part more or less, at random
  int64_t in_flight = 2;                          // LaneOptions::max_in_flight_batches
  int64_t batch_timeout_ns = 0;                   // BatchPolicy
  bool serial = true;                             // the device runs one batch after the other, else all at a time
  std::function<double(int64_t)> slow = nullptr;  // times longer that the device needs at some time
};

struct Outcome {
  double good_per_s = 0;  // answered with OK
  double refused = 0;     // part of the tasks
  double wasted = 0;      // part of the rows that ran: for nobody
  double rows_per_batch = 0;
};

// A device fed by a scheduler.
class Simulation {
 public:
  explicit Simulation(const Load& load) : load_(load), s_(Options(load)) {
    BatchPolicy policy;
    policy.max_batch_size = kMaxBatchSize;
    policy.batch_timeout_ns = load.batch_timeout_ns;
    queue_ = s_.Queue(policy);
  }

  // Runs for `ns`, of which the first part, `skip_ns`, does not count.
  Outcome Run(double rate, int64_t skip_ns, int64_t ns) {
    std::exponential_distribution<double> gap(rate / 1e9);
    const int64_t from_ns = s_.now_ns + skip_ns, until_ns = s_.now_ns + ns;
    int64_t arrival_ns = s_.now_ns, tasks = 0, refused = 0;
    BatchGroupStats before = queue_->group->stats;
    uint64_t good_before = answered_rows_;
    while (s_.now_ns < until_ns) {
      const int64_t end_ns = running_.empty() ? TESSERA_NO_DEADLINE : running_.front().end_ns;
      const int64_t event_ns = s_.NextEventNs();
      const int64_t then_ns = s_.now_ns;
      s_.now_ns = std::max(s_.now_ns, std::min({arrival_ns, end_ns, event_ns}));
      if (then_ns < from_ns && s_.now_ns >= from_ns) {
        before = queue_->group->stats;
        good_before = answered_rows_;
      }
      if (end_ns <= s_.now_ns) {
        const auto batch = running_.front().batch;
        running_.pop_front();
        s_.Finish(batch);
      } else if (event_ns <= s_.now_ns) {
        s_.Expire();
      } else {
        auto task = MakeTask();
        task->deadline_ns = s_.now_ns + load_.deadlines_ns[random_() % load_.deadlines_ns.size()];
        const bool counts = s_.now_ns >= from_ns;
        tasks += counts;
        task->then = [this, counts, &refused, raw = task.get()] {
          answered_rows_ += raw->code == Code::kOk;
          refused += counts && raw->code != Code::kOk;
        };
        s_.Enqueue(queue_, task);
        arrival_ns += static_cast<int64_t>(gap(random_)) + 1;
      }
      while (auto batch = s_.Start()) Begin(std::move(batch));
    }
    const BatchGroupStats& after = queue_->group->stats;
    const uint64_t rows = after.rows - before.rows;
    Outcome outcome;
    outcome.good_per_s = static_cast<double>(answered_rows_ - good_before) * 1e9 / static_cast<double>(ns - skip_ns);
    outcome.wasted = 1 - static_cast<double>(answered_rows_ - good_before) / static_cast<double>(rows);
    outcome.rows_per_batch = static_cast<double>(rows) / static_cast<double>(after.batches - before.batches);
    // What has no answer yet must not touch the counters of this call.
    while (!s_.scheduler.idle()) {
      if (running_.empty()) {
        s_.now_ns = std::max(s_.now_ns, s_.NextEventNs());
        s_.Expire();
      } else {
        s_.now_ns = std::max(s_.now_ns, running_.front().end_ns);
        s_.Expire();
        const auto batch = running_.front().batch;
        running_.pop_front();
        s_.Finish(batch);
      }
      while (auto batch = s_.Start()) Begin(std::move(batch));
    }
    outcome.refused = static_cast<double>(refused) / static_cast<double>(tasks);
    return outcome;
  }

 private:
  struct Running {
    std::shared_ptr<ScheduledBatch> batch;
    int64_t end_ns;
  };

  static LaneOptions Options(const Load& load) {
    LaneOptions options;
    options.max_in_flight_batches = load.in_flight;
    return options;
  }

  void Begin(std::shared_ptr<ScheduledBatch> batch) {
    std::uniform_real_distribution<double> jitter(1 - load_.jitter, 1 + load_.jitter);
    double ns = static_cast<double>(kBatchNs + batch->padded_rows() * kRowNs) * jitter(random_);
    if (load_.slow) ns *= load_.slow(s_.now_ns);
    const int64_t begin_ns = load_.serial && !running_.empty() ? running_.back().end_ns : s_.now_ns;
    const Running running = {std::move(batch), begin_ns + static_cast<int64_t>(ns)};
    running_.insert(std::upper_bound(running_.begin(), running_.end(), running,
                                     [](const Running& a, const Running& b) { return a.end_ns < b.end_ns; }),
                    running);
  }

  const Load load_;
  std::mt19937 random_{7};
  SteppedScheduler s_;
  std::shared_ptr<BatchQueue> queue_;
  std::deque<Running> running_;  // in the order in which they end
  uint64_t answered_rows_ = 0;   // with OK
};

Outcome Simulate(const Load& load) { return Simulation(load).Run(load.rate, kSecond / 2, 3 * kSecond); }

std::string Text(const Outcome& outcome) {
  return std::to_string(outcome.good_per_s) + " good/s, " + std::to_string(outcome.refused) + " refused, " +
         std::to_string(outcome.wasted) + " wasted, " + std::to_string(outcome.rows_per_batch) + " rows a batch";
}

struct Case {
  int64_t deadline_ms;
  double jitter;
  int64_t in_flight;
};

class BatchOverload : public testing::TestWithParam<Case> {
 protected:
  static Load At(double factor) {
    Load load;
    load.rate = factor * kCapacity;
    load.deadlines_ns = {GetParam().deadline_ms * kMilli};
    load.jitter = GetParam().jitter;
    load.in_flight = GetParam().in_flight;
    return load;
  }
};

TEST_P(BatchOverload, WhatIsAnsweredInTimeStaysNearItsPeak) {
  double peak = 0;
  for (const double factor : {0.5, 1.0, 1.5, 3.0, 10.0}) {
    const Outcome outcome = Simulate(At(factor));
    SCOPED_TRACE(std::to_string(factor) + " x capacity: " + Text(outcome));
    peak = std::max(peak, outcome.good_per_s);
    if (factor > 1) {
      EXPECT_GE(outcome.good_per_s, 0.9 * peak);
      EXPECT_GE(outcome.good_per_s, 0.9 * kCapacity);
      EXPECT_LE(outcome.wasted, 0.03);
      EXPECT_GE(outcome.rows_per_batch, 0.9 * kMaxBatchSize);
    }
  }
}

TEST_P(BatchOverload, BelowCapacityNothingIsRefused) {
  for (const double factor : {0.1, 0.5, 0.8}) {
    const Outcome outcome = Simulate(At(factor));
    EXPECT_EQ(outcome.refused, 0) << factor << " x capacity: " << Text(outcome);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BatchOverload,
                         testing::Values(Case{50, 0, 2}, Case{100, 0, 2}, Case{200, 0, 2}, Case{50, 0.2, 2},
                                         Case{100, 0.2, 2}, Case{200, 0.2, 2}, Case{100, 0.2, 1}, Case{100, 0.2, 0}),
                         [](const auto& info) {
                           return "Deadline" + std::to_string(info.param.deadline_ms) + "Jitter" +
                                  std::to_string(static_cast<int>(info.param.jitter * 100)) + "InFlight" +
                                  std::to_string(info.param.in_flight);
                         });

Load Loaded(double factor, int64_t deadline_ms) {
  Load load;
  load.rate = factor * kCapacity;
  load.deadlines_ns = {deadline_ms * kMilli};
  load.jitter = 0.2;
  return load;
}

TEST(BatchOverloaded, DeadlinesOfAllKinds) {
  for (const double factor : {1.5, 3.0, 10.0}) {
    Load load = Loaded(factor, 50);
    load.deadlines_ns = {50 * kMilli, 100 * kMilli, 200 * kMilli};
    const Outcome outcome = Simulate(load);
    EXPECT_GE(outcome.good_per_s, 0.9 * kCapacity) << Text(outcome);
  }
}

TEST(BatchOverloaded, AWaitForOthersChangesNothing) {
  Load load = Loaded(3, 100);
  load.batch_timeout_ns = 200 * kMilli;
  EXPECT_GE(Simulate(load).good_per_s, 0.9 * kCapacity);
  load.rate = 0.8 * kCapacity;
  EXPECT_EQ(Simulate(load).refused, 0);
}

TEST(BatchOverloaded, ADeviceThatRunsBatchesSideBySide) {
  for (const int64_t in_flight : {2, 8}) {
    const double batches = static_cast<double>(in_flight);
    Load load = Loaded(0.8 * batches, 50);
    load.serial = false;
    load.in_flight = in_flight;
    Outcome outcome = Simulate(load);
    EXPECT_EQ(outcome.refused, 0) << Text(outcome);
    load.rate = 3 * batches * kCapacity;
    outcome = Simulate(load);
    EXPECT_GE(outcome.good_per_s, 0.9 * batches * kCapacity) << Text(outcome);
  }
}

TEST(BatchOverloaded, FromTheFirstRequestOn) {
  for (const double factor : {0.5, 10.0}) {
    const Load load = Loaded(factor, 50);
    const Outcome outcome = Simulation(load).Run(load.rate, 0, kSecond / 2);
    EXPECT_GE(outcome.good_per_s, 0.85 * std::min(factor, 1.0) * kCapacity) << Text(outcome);
    if (factor < 1) {
      EXPECT_EQ(outcome.refused, 0);
    }
  }
}

TEST(BatchOverloaded, ASlowSpellIsForgotten) {
  for (const double factor : {0.5, 1.5, 10.0}) {
    Load load = Loaded(factor, 50);
    load.slow = [](int64_t ns) { return ns > kSecond && ns < kSecond * 3 / 2 ? 10.0 : 1.0; };
    const Outcome outcome = Simulation(load).Run(load.rate, 2 * kSecond, 3 * kSecond);
    EXPECT_GE(outcome.good_per_s, 0.9 * std::min(factor, 1.0) * kCapacity) << factor << ": " << Text(outcome);
  }
}

TEST(BatchOverloaded, ItEndsWithTheLoad) {
  Simulation simulation(Loaded(1, 100));
  simulation.Run(10 * kCapacity, 0, kSecond);
  const Outcome outcome = simulation.Run(0.5 * kCapacity, 0, kSecond);
  EXPECT_EQ(outcome.refused, 0) << Text(outcome);
}

}  // namespace
}  // namespace tessera
