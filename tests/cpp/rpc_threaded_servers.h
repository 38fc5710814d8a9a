// Fake shard servers that answer, fail and hang on threads of their own.
#ifndef TESSERA_TESTS_CPP_RPC_THREADED_SERVERS_H_
#define TESSERA_TESTS_CPP_RPC_THREADED_SERVERS_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {

// Says how a call is answered, once; on any thread.
using Answer = std::function<void(FakeCall* call, uint32_t random)>;

inline void AnswerMostly(FakeCall* call, uint32_t random) {
  switch (random % 32) {
    case 0:
    case 1:
      return call->Fail(Code::kUnavailable);
    case 2:
    case 3:
      return call->Refuse(RefusalKind::kNotOwner, random % 10);
    case 4:
      return call->Refuse(RefusalKind::kBadRequest);
    case 5:
      return call->Fail(Code::kResourceExhausted);
    default:
      return call->AnswerRows();
  }
}

// Answers calls in any order on several threads.
class Answerers {
 public:
  Answerers(size_t threads, Answer answer) : answer_(std::move(answer)) {
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
  // Keeps a call that is cancelled, or answered when nothing else is going on.
  void AddSilent(std::shared_ptr<FakeCall> call) {
    std::lock_guard<std::mutex> lock(mu_);
    silent_.push_back(std::move(call));
  }
  void Cancel(FakeCall* call) {
    std::unique_lock<std::mutex> lock(mu_);
    const auto known = std::find_if(silent_.begin(), silent_.end(), [call](const auto& c) { return c.get() == call; });
    if (known == silent_.end()) return;
    const std::shared_ptr<FakeCall> ended = std::move(*known);
    silent_.erase(known);
    lock.unlock();
    ended->Fail(Code::kCancelled);
  }

 private:
  void Run(uint32_t seed) {
    std::mt19937 random(seed);
    std::unique_lock<std::mutex> lock(mu_);
    while (true) {
      if (!changed_.wait_for(lock, std::chrono::milliseconds(2), [this] { return stopped_ || !calls_.empty(); })) {
        std::move(silent_.begin(), silent_.end(), std::back_inserter(calls_));
        silent_.clear();
        continue;
      }
      if (calls_.empty()) return;
      std::swap(calls_.front(), calls_[random() % calls_.size()]);
      const std::shared_ptr<FakeCall> call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      answer_(call.get(), random());
      lock.lock();
    }
  }

  const Answer answer_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<FakeCall>> calls_;    // guarded by mu_
  std::vector<std::shared_ptr<FakeCall>> silent_;  // guarded by mu_
  bool stopped_ = false;                           // guarded by mu_
  std::vector<std::thread> threads_;
};

class ThreadedTransport final : public Transport {
 public:
  // Every `silent_every`th call gets no answer in time; 0: all get one.
  ThreadedTransport(Answerers* answerers, const std::vector<TableSpec>* tables, uint32_t silent_every = 0)
      : answerers_(answerers), tables_(tables), silent_every_(silent_every) {}
  std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) override {
    auto call = std::make_shared<Call>();
    call->answerers = answerers_;
    call->fake->request = std::move(request);
    call->fake->tables = tables_;
    call->fake->done = std::move(done);
    if (silent_every_ != 0 && calls_.fetch_add(1) % silent_every_ == 0) {
      answerers_->AddSilent(call->fake);
    } else {
      answerers_->Add(call->fake);
    }
    return call;
  }

 private:
  struct Call final : public TransportCall {
    void Cancel() override { answerers->Cancel(fake.get()); }
    Answerers* answerers = nullptr;
    const std::shared_ptr<FakeCall> fake = std::make_shared<FakeCall>();
  };
  Answerers* const answerers_;
  const std::vector<TableSpec>* const tables_;
  const uint32_t silent_every_;
  std::atomic<uint32_t> calls_{0};
};

}  // namespace tessera

#endif  // TESSERA_TESTS_CPP_RPC_THREADED_SERVERS_H_
