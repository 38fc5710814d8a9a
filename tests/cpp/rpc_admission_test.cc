// More calls than can be answered, on virtual time.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "cpp_ext/rpc/admission.h"

namespace tessera {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kUs = 1'000;

TEST(Admission, AdmitsWhatCanBeAnsweredInHalfOfItsTime) {
  Admission admission;
  for (int i = 0; i < 100; ++i) admission.OnRun(10 * kMs);
  EXPECT_NEAR(static_cast<double>(admission.WaitNs(1)), 10.0 * kMs, 0.01 * kMs);
  EXPECT_TRUE(admission.Admits(0, 1));
  EXPECT_FALSE(admission.Admits(0, 0)) << "its deadline has passed";
  EXPECT_TRUE(admission.Admits(4, 100 * kMs));
  EXPECT_FALSE(admission.Admits(6, 100 * kMs));
  EXPECT_TRUE(admission.Admits(6, 30'000 * kMs)) << "a caller with time may wait";
}

TEST(Admission, BeginsNothingThatHasWaitedLongerThanWhatIsLeft) {
  EXPECT_TRUE(Admission::IsWorthBeginning(50 * kMs, 50 * kMs));
  EXPECT_FALSE(Admission::IsWorthBeginning(51 * kMs, 49 * kMs));
  EXPECT_FALSE(Admission::IsWorthBeginning(0, 0));
}

TEST(Admission, AsksToComeAgainWhenWhatWaitsIsDone) {
  Admission admission;
  EXPECT_EQ(admission.RetryAfterMs(1000), Admission::kLeastRetryMs) << "nothing is known yet";
  for (int i = 0; i < 100; ++i) admission.OnRun(10 * kMs);
  EXPECT_NEAR(static_cast<double>(admission.RetryAfterMs(50)), 500, 5);
  EXPECT_EQ(admission.RetryAfterMs(1'000'000), Admission::kMostRetryMs);
}

struct Outcome {
  double goodput = 0;      // answers in time, of what could be answered
  double refused = 0;      // of all calls
  int64_t slowest_ns = 0;  // of answers in time
};

// One thread that runs calls of `run_ns` each, in order, as a poller does; refusing costs `refuse_ns`. Calls come
// evenly at `load` times the capacity for ten seconds, with `timeout_ns` each.
Outcome Simulate(double load, int64_t timeout_ns, bool with_admission, int64_t run_ns = 2 * kMs,
                 int64_t refuse_ns = 20 * kUs) {
  const int64_t end_ns = 10'000 * kMs;
  const int64_t every_ns = static_cast<int64_t>(static_cast<double>(run_ns) / load);
  Admission admission;
  std::deque<int64_t> waiting;
  Outcome outcome;
  int64_t now_ns = 0, next_ns = 0, calls = 0, good = 0, refused = 0;
  while (now_ns < end_ns) {
    for (; next_ns <= now_ns; next_ns += every_ns) {
      ++calls;
      if (!with_admission || admission.Admits(waiting.size(), timeout_ns)) {
        waiting.push_back(next_ns);
      } else {
        ++refused;
        now_ns += refuse_ns;
      }
    }
    if (waiting.empty()) {
      now_ns = next_ns;
      continue;
    }
    const int64_t came_ns = waiting.front();
    waiting.pop_front();
    const int64_t waited_ns = now_ns - came_ns;
    if (with_admission && !Admission::IsWorthBeginning(waited_ns, timeout_ns - waited_ns)) {
      ++refused;
      now_ns += refuse_ns;
      continue;
    }
    now_ns += run_ns;
    if (with_admission) admission.OnRun(run_ns);
    const int64_t took_ns = now_ns - came_ns;
    if (took_ns > timeout_ns) continue;
    ++good;
    outcome.slowest_ns = std::max(outcome.slowest_ns, took_ns);
  }
  outcome.goodput = static_cast<double>(good) * static_cast<double>(run_ns) / static_cast<double>(end_ns);
  outcome.refused = static_cast<double>(refused) / static_cast<double>(calls);
  return outcome;
}

TEST(Admission, KeepsGoodputUnderThreeTimesTheCapacity) {
  for (const int64_t timeout_ns : {50 * kMs, 250 * kMs, 1000 * kMs}) {
    const Outcome peak = Simulate(0.99, timeout_ns, /*with_admission=*/true);
    EXPECT_EQ(peak.refused, 0.0) << "below its capacity nobody is refused";
    EXPECT_GT(peak.goodput, 0.98);
    for (const double load : {1.5, 3.0}) {
      const Outcome overload = Simulate(load, timeout_ns, /*with_admission=*/true);
      EXPECT_GT(overload.goodput, 0.9 * peak.goodput) << load;
      EXPECT_LE(overload.slowest_ns, timeout_ns / 2 + 10 * kMs) << load;
      EXPECT_LT(Simulate(load, timeout_ns, /*with_admission=*/false).goodput, 0.5) << "what it is for";
    }
  }
}

TEST(Admission, RefusesNobodyInAClosedLoopWhoseCallersHaveTime) {
  Admission admission;
  for (int i = 0; i < 100; ++i) admission.OnRun(5 * kMs);
  for (size_t waiting = 0; waiting < 256; ++waiting) EXPECT_TRUE(admission.Admits(waiting, 10'000 * kMs)) << waiting;
}

}  // namespace
}  // namespace tessera
