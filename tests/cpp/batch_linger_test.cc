// Batches that wait a little for the callers that were just answered.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = SteppedScheduler::kMicro, kMilli = SteppedScheduler::kMilli;

// Callers that ask again 0.2 to 0.8 ms after each answer; a batch takes 5 ms and 0.1 ms a row. Returns answers per
// second, after the first half of `seconds`.
double ClosedLoopRate(SteppedScheduler* s, const std::shared_ptr<BatchQueue>& queue, size_t clients, int64_t seconds) {
  const int64_t end_ns = s->now_ns + seconds * SteppedScheduler::kSecond, half_ns = (s->now_ns + end_ns) / 2;
  std::mt19937 random(1);
  std::uniform_int_distribution<int64_t> pause_ns(kMilli / 5, kMilli * 4 / 5);
  std::multiset<int64_t> returns;
  for (size_t i = 0; i < clients; ++i) returns.insert(s->now_ns + static_cast<int64_t>(i) * kMilli);
  std::shared_ptr<ScheduledBatch> batch;
  int64_t batch_ends_ns = 0;
  int answers = 0;
  while (s->now_ns < end_ns) {
    int64_t next_ns = batch != nullptr ? batch_ends_ns : s->NextEventNs();
    if (!returns.empty()) next_ns = std::min(next_ns, *returns.begin());
    s->now_ns = std::max(s->now_ns, next_ns);
    if (batch != nullptr && batch_ends_ns == s->now_ns) {
      s->Finish(batch);
      for (size_t i = 0; i < batch->tasks().size(); ++i) returns.insert(s->now_ns + pause_ns(random));
      if (s->now_ns >= half_ns) answers += static_cast<int>(batch->tasks().size());
      batch = nullptr;
    }
    for (; !returns.empty() && *returns.begin() <= s->now_ns; returns.erase(returns.begin())) s->Enqueue(queue);
    if (batch == nullptr && (batch = s->Start()) != nullptr) {
      batch_ends_ns = s->now_ns + 5 * kMilli + batch->rows() * kMilli / 10;
    }
  }
  for (; batch != nullptr || !queue->empty(); batch = s->Start()) {
    if (batch != nullptr) s->Finish(batch);
    if (!queue->empty()) s->now_ns = std::max(s->now_ns, std::min(s->NextEventNs(), s->now_ns + 100 * kMilli));
  }
  return answers * 2.0 / static_cast<double>(seconds);
}

TEST(BatchLinger, LingersForCallersThatComeBack) {
  for (const size_t clients : {2, 4, 8}) {
    SteppedScheduler s;
    const double all_together = static_cast<double>(clients) * 1000 / (5.8 + 0.1 * static_cast<double>(clients));
    EXPECT_GE(ClosedLoopRate(&s, s.Queue(), clients, 20), 0.93 * all_together) << clients;
  }
}

// Requests that come by themselves, `per_ms` of them; returns the part of `batches` that lingered in vain.
double OpenLoopLingers(SteppedScheduler* s, const std::shared_ptr<BatchQueue>& queue, double per_ms, int batches) {
  std::mt19937 random(3);
  std::exponential_distribution<double> gap_ms(per_ms);
  int64_t arrival_ns = s->now_ns, batch_ends_ns = 0;
  std::shared_ptr<ScheduledBatch> batch;
  int lingered = 0;
  for (int started = 0; started < batches;) {
    const int64_t event_ns = batch != nullptr ? batch_ends_ns : s->NextEventNs();
    s->now_ns = std::max(s->now_ns, std::min(event_ns, arrival_ns));
    if (batch != nullptr && s->now_ns >= batch_ends_ns) s->Finish(std::exchange(batch, nullptr));
    if (s->now_ns >= arrival_ns) {
      s->Enqueue(queue);
      arrival_ns += static_cast<int64_t>(gap_ms(random) * static_cast<double>(kMilli));
    }
    if (batch != nullptr || (batch = s->Start()) == nullptr) continue;
    batch_ends_ns = s->now_ns + 5 * kMilli + batch->rows() * kMilli / 10;
    ++started;
    lingered += s->last_reason == CloseReason::kTimeout;
  }
  if (batch != nullptr) s->Finish(batch);
  return static_cast<double>(lingered) / batches;
}

TEST(BatchLinger, LingersOnlyToTryWhereRequestsComeByThemselves) {
  SteppedScheduler s;
  EXPECT_LE(OpenLoopLingers(&s, s.Queue(), 0.4, 20'000), 0.1);
}

// Answers two callers, of whom one comes back with `task`; returns whether it waits for the other one.
bool WaitsForTheSecond(SteppedScheduler* s, const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<FakeTask> task) {
  s->EnqueueAll(queue, {MakeTask(), MakeTask()});
  auto batch = s->Start();
  s->now_ns += 5200 * kMicro;
  s->Finish(batch);
  s->Enqueue(queue, std::move(task));
  batch = s->Start();
  if (batch != nullptr) s->Finish(batch);
  return batch == nullptr;
}

TEST(BatchLinger, LingersNoLongerThanHalfABatchAndNotBeyondADeadline) {
  for (const bool urgent : {false, true}) {
    SteppedScheduler s;
    auto queue = s.Queue();
    bool waits = false;
    for (int i = 0; !waits && i < 20; ++i) {  // it tries other ways now and then
      ClosedLoopRate(&s, queue, 4, 2);
      s.now_ns += 100 * kMilli;  // nobody is expected any more
      auto task = MakeTask();
      if (urgent) task->deadline_ns = s.now_ns + 5200 * kMicro + 7 * kMilli;
      waits = WaitsForTheSecond(&s, queue, task);
    }
    ASSERT_TRUE(waits);
    const int64_t wait_ns = s.NextEventNs() - s.now_ns;
    EXPECT_LE(wait_ns, urgent ? 1900 * kMicro : 2600 * kMicro);
    s.now_ns += wait_ns;
    const auto batch = s.Start();
    ASSERT_NE(batch, nullptr);
    s.Finish(batch);
  }
}

}  // namespace
}  // namespace tessera
