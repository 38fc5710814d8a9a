// Many lookups at once over servers that answer, fail and hang on threads of their own; meant for ThreadSanitizer.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <utility>

#include "cpp_ext/base/clock.h"
#include "tests/cpp/rpc_threaded_servers.h"

namespace tessera {
namespace {

struct Outcome {
  std::vector<std::string> rows;
  std::atomic<int> code{-1};
};

class FanoutStress : public testing::TestWithParam<uint32_t> {
 protected:
  static FanoutOptions Options() {
    FanoutOptions options = FakeServers::DefaultOptions();
    options.retry_budget_tokens = 1 << 24;
    options.max_in_flight_lookups_per_server = GetParam();
    return options;
  }

  // Connects a fan-out to the servers of `spec`; of s0, every `silent_every`th call gets no answer in time.
  void Connect(const RouteSpec& spec, Answerers* answerers, const FanoutOptions& options, uint32_t silent_every = 0) {
    FanoutParts parts;
    parts.now_ns = MonotonicNs;
    parts.timer = MakeThreadRetryTimer();
    parts.connect = [&spec, answerers, silent_every](const TargetSpec& target) {
      const uint32_t silent = target.server_id == "s0" ? silent_every : 0;
      return std::make_shared<ThreadedTransport>(answerers, &spec.tables, silent);
    };
    ASSERT_TRUE(Fanout::Create(std::move(parts), options, &fanout).ok());
    ASSERT_TRUE(fanout->MakeRoute(spec, &route).ok());
  }

  std::shared_ptr<Fanout> fanout;
  Ref<TesseraRoute> route;
};
// RPCs in flight: as many as come, or few, so that most are merged.
INSTANTIATE_TEST_SUITE_P(InFlight, FanoutStress, testing::Values(0, 1, 3));

TEST_P(FanoutStress, GivesRightRowsOrAFailureExactlyOnceUnderConcurrency) {
  const RouteSpec spec = FakeServers::Spec(4, 3);
  Answerers answerers(3, AnswerMostly);
  FanoutOptions options = Options();
  options.retry_delay_ns = 20'000;  // hedges all the time
  Connect(spec, &answerers, options, /*silent_every=*/8);
  std::atomic<int> good{0}, failed{0}, cancelled{0}, late{0}, wrong{0};

  const auto work = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 1500; ++round) {
      std::vector<std::vector<int64_t>> ids(2);
      Outcome outcome;
      std::vector<TesseraGather> gathers;
      for (uint32_t table = 0; table < 2; ++table) {
        ids[table].resize(random() % 40);
        for (int64_t& id : ids[table]) id = random() % 1000;
        outcome.rows.emplace_back(ids[table].size() * static_cast<size_t>(spec.tables[table].row_bytes), '\0');
      }
      for (uint32_t table = 0; table < 2; ++table) {
        gathers.push_back({table, 8, ids[table].data(), ids[table].size(), outcome.rows[table].data()});
      }
      TesseraLookup* const lookup = FanoutApi()->start(
          route.get(), gathers.data(), gathers.size(),
          random() % 4 == 0 ? MonotonicNs() + random() % 1'000'000 : TESSERA_NO_DEADLINE,
          [](void* arg, int code, const char*, size_t) {
            ASSERT_EQ(static_cast<Outcome*>(arg)->code.exchange(code), -1);
          },
          &outcome);
      if (random() % 8 == 0) {
        for (uint32_t spins = random() % 4; spins > 0; --spins) std::this_thread::yield();
        FanoutApi()->cancel(lookup);
      }
      while (outcome.code == -1) std::this_thread::yield();
      FanoutApi()->release_lookup(lookup);
      if (outcome.code != 0) {
        const Code code = static_cast<Code>(outcome.code.load());
        ++(code == Code::kCancelled ? cancelled : code == Code::kDeadlineExceeded ? late : failed);
        continue;
      }
      ++good;
      for (uint32_t table = 0; table < 2; ++table) {
        std::string expected;
        for (const int64_t id : ids[table]) expected += RowBytes(spec.tables[table], static_cast<uint64_t>(id));
        if (outcome.rows[table] != expected) ++wrong;
      }
    }
  };
  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < 6; ++i) workers.emplace_back(work, i);
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(good + failed + cancelled + late, 9000);
  EXPECT_GT(good, 3000);
  fanout->Stop();
  const FanoutStats stats = fanout->Stats();
  EXPECT_EQ(stats.lookups, 9000);
  EXPECT_EQ(stats.failures, failed + cancelled + late);
  EXPECT_GT(stats.hedges, 0);
  // With one in flight and six threads lookups meet; with three they may not.
  if (GetParam() < 2) {
    EXPECT_EQ(stats.merged > 0, GetParam() == 1);
  }
  for (const auto& [id, server] : stats.servers) EXPECT_EQ(server.in_flight, 0) << id;
}

struct Burst {
  std::vector<int64_t> ids;
  std::string rows;
  TesseraLookup* lookup = nullptr;
  std::atomic<int> code{-1};
};

TEST_P(FanoutStress, ABadMemberFailsNoneOfItsNeighbours) {
  const RouteSpec spec = FakeServers::Spec(2, 1);
  const auto is_bad = [](uint64_t id) { return id % 37 == 5; };
  Answerers answerers(2, [&](FakeCall* call, uint32_t) {
    for (const auto& [table, ids] : call->Asked()) {
      if (std::any_of(ids.begin(), ids.end(), is_bad)) return call->Refuse(RefusalKind::kBadRequest);
    }
    call->AnswerRows();
  });
  Connect(spec, &answerers, Options());
  std::atomic<int> unexpected{0};
  std::vector<std::thread> workers;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    workers.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int round = 0; round < 40; ++round) {
        // Many at once from each thread: some meet, whatever the scheduler does.
        std::array<Burst, 16> burst;
        for (Burst& one : burst) {
          one.ids.resize(1 + random() % 4);
          for (int64_t& id : one.ids) id = random() % 1000;
          one.rows.resize(one.ids.size() * 8);
          const TesseraGather gather = {0, 8, one.ids.data(), one.ids.size(), one.rows.data()};
          one.lookup = FanoutApi()->start(
              route.get(), &gather, 1, TESSERA_NO_DEADLINE,
              [](void* arg, int code, const char*, size_t) { static_cast<Burst*>(arg)->code = code; }, &one);
        }
        for (Burst& one : burst) {
          while (one.code == -1) std::this_thread::yield();
          FanoutApi()->release_lookup(one.lookup);
          const bool bad = std::any_of(one.ids.begin(), one.ids.end(), is_bad);
          if (one.code != static_cast<int>(bad ? Code::kInternal : Code::kOk)) ++unexpected;
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(unexpected, 0);
  EXPECT_EQ(fanout->Stats().merged > 0, GetParam() > 0);
  fanout->Stop();
}

TEST_P(FanoutStress, StopsWhileLookupsStart) {
  const RouteSpec spec = FakeServers::Spec(4, 2);
  for (int round = 0; round < 50; ++round) {
    Answerers answerers(2, AnswerMostly);
    Connect(spec, &answerers, Options());
    std::atomic<int> done{0};
    std::vector<std::thread> workers;
    for (int i = 0; i < 2; ++i) {
      workers.emplace_back([&] {
        const int64_t ids[] = {1, 2, 3, 4};
        for (int n = 0; n < 100; ++n) {
          std::string rows(4 * 8, '\0');
          std::atomic<int> code{-1};
          const TesseraGather gather = {0, 8, ids, 4, rows.data()};
          TesseraLookup* const lookup = FanoutApi()->start(
              route.get(), &gather, 1, TESSERA_NO_DEADLINE,
              [](void* arg, int code, const char*, size_t) { *static_cast<std::atomic<int>*>(arg) = code; }, &code);
          while (code == -1) std::this_thread::yield();
          FanoutApi()->release_lookup(lookup);
          ++done;
        }
      });
    }
    while (done < round) std::this_thread::yield();
    fanout->Stop();
    for (std::thread& worker : workers) worker.join();
    EXPECT_EQ(done, 200);
  }
}

}  // namespace
}  // namespace tessera
