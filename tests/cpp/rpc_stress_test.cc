// Many lookups at once over servers that answer, fail and hang on threads of their own; meant for ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "cpp_ext/base/clock.h"
#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

// Answers calls in any order on several threads.
class Answerers {
 public:
  explicit Answerers(size_t threads) {
    for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this, i] { Run(static_cast<uint32_t>(i)); });
  }
  ~Answerers() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      stopped_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void Add(std::shared_ptr<FakeCall> call) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      calls_.push_back(std::move(call));
    }
    changed_.notify_one();
  }

 private:
  void Run(uint32_t seed) {
    std::mt19937 random(seed);
    std::unique_lock<std::mutex> lock(mu_);
    while (true) {
      changed_.wait(lock, [this] { return stopped_ || !calls_.empty(); });
      if (calls_.empty()) return;
      std::swap(calls_.front(), calls_[random() % calls_.size()]);
      const std::shared_ptr<FakeCall> call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      switch (random() % 16) {
        case 0:
          call->Fail(Code::kUnavailable);
          break;
        case 1:
          call->Refuse(RefusalKind::kNotOwner, random() % 10);
          break;
        default:
          call->AnswerRows();
      }
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<FakeCall>> calls_;  // guarded by mu_
  bool stopped_ = false;                         // guarded by mu_
  std::vector<std::thread> threads_;
};

class ThreadedTransport final : public Transport {
 public:
  ThreadedTransport(Answerers* answerers, const std::vector<TableSpec>* tables)
      : answerers_(answerers), tables_(tables) {}
  std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) override {
    auto call = std::make_shared<Call>();
    call->fake->request = std::move(request);
    call->fake->tables = tables_;
    call->fake->done = std::move(done);
    answerers_->Add(call->fake);
    return call;
  }

 private:
  struct Call final : public TransportCall {
    void Cancel() override {}  // comes from another thread than the answer
    const std::shared_ptr<FakeCall> fake = std::make_shared<FakeCall>();
  };
  Answerers* const answerers_;
  const std::vector<TableSpec>* const tables_;
};

struct Outcome {
  std::vector<std::string> rows;
  std::atomic<int> code{-1};
};

TEST(FanoutStress, GivesRightRowsOrAFailureExactlyOnceUnderConcurrency) {
  const RouteSpec spec = FakeServers::Spec(4, 3);
  Answerers answerers(3);
  FanoutOptions options = FakeServers::DefaultOptions();
  options.retry_delay_ns = 20'000;  // hedges all the time
  FanoutParts parts;
  parts.now_ns = MonotonicNs;
  parts.timer = MakeThreadRetryTimer();
  parts.connect = [&](const TargetSpec&) { return std::make_shared<ThreadedTransport>(&answerers, &spec.tables); };
  std::shared_ptr<Fanout> fanout;
  ASSERT_TRUE(Fanout::Create(std::move(parts), options, &fanout).ok());
  Ref<TesseraRoute> route;
  ASSERT_TRUE(fanout->MakeRoute(spec, &route).ok());
  std::atomic<int> good{0}, failed{0}, cancelled{0}, wrong{0};

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
          route.get(), gathers.data(), gathers.size(), TESSERA_NO_DEADLINE,
          [](void* arg, int code, const char*, size_t) {
            ASSERT_EQ(static_cast<Outcome*>(arg)->code.exchange(code), -1);
          },
          &outcome);
      if (random() % 8 == 0) FanoutApi()->cancel(lookup);
      while (outcome.code == -1) std::this_thread::yield();
      FanoutApi()->release_lookup(lookup);
      if (outcome.code != 0) {
        ++(outcome.code == static_cast<int>(Code::kCancelled) ? cancelled : failed);
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
  for (uint32_t i = 0; i < 3; ++i) workers.emplace_back(work, i);
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(good + failed + cancelled, 4500);
  EXPECT_GT(good, 2500);
  fanout->Stop();
  const FanoutStats stats = fanout->Stats();
  EXPECT_EQ(stats.lookups, 4500);
  EXPECT_EQ(stats.failures, failed + cancelled);
  EXPECT_GT(stats.hedges, 0);
  for (const auto& [id, server] : stats.servers) EXPECT_EQ(server.in_flight, 0) << id;
}

TEST(FanoutStress, StopsWhileLookupsStart) {
  const RouteSpec spec = FakeServers::Spec(4, 2);
  for (int round = 0; round < 50; ++round) {
    Answerers answerers(2);
    FanoutParts parts;
    parts.now_ns = MonotonicNs;
    parts.timer = MakeThreadRetryTimer();
    parts.connect = [&](const TargetSpec&) { return std::make_shared<ThreadedTransport>(&answerers, &spec.tables); };
    std::shared_ptr<Fanout> fanout;
    ASSERT_TRUE(Fanout::Create(std::move(parts), FakeServers::DefaultOptions(), &fanout).ok());
    Ref<TesseraRoute> route;
    ASSERT_TRUE(fanout->MakeRoute(spec, &route).ok());
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
