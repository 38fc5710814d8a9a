// A thread for each client, which waits for its answers, as TensorFlow Serving has a thread for each request.
#include <errno.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <time.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "bench/cpp/batch/batch_load.h"

namespace tessera::bench {
namespace {

timespec AsTime(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }

// Runs one request after the other and waits for each.
class Client {
 public:
  Client(const Plan& plan, const Load& load, uint64_t seed)
      : plan_(plan), load_(load), dice_(seed), call_(load.model->NewCall()) {
    sem_init(&ended_, 0, 0);
  }
  ~Client() { sem_destroy(&ended_); }

  void Run(int64_t arrival_ns) {
    Record record;
    record.arrival_ns = arrival_ns;
    const Sample& sample = dice_.Pick(load_.model->samples, plan_.poison, &record.poisoned);
    const int64_t deadline_ns = plan_.deadline_ns == 0 ? 0 : arrival_ns + plan_.deadline_ns;
    record.cancelled = dice_.Happens(plan_.cancel);
    const int64_t cancel_ns = record.cancelled ? NowNs() + dice_.CancelDelayNs() : 0;
    if (deadline_ns != 0 && NowNs() >= deadline_ns) {  // it waited for a thread too long, and is not even started
      record.code = absl::StatusCode::kDeadlineExceeded;
      record.done_ns = NowNs();
    } else {
      call_->Start(sample, deadline_ns, cancel_ns, &Client::OnDone, this);
      Wait(cancel_ns);
      record.done_ns = done_ns_;
      Judge(*call_, sample, &record);
    }
    records_.push_back(record);
  }
  std::vector<Record>& records() { return records_; }
  Dice& dice() { return dice_; }

 private:
  static void OnDone(void* arg) {
    auto* self = static_cast<Client*>(arg);
    self->done_ns_ = NowNs();
    sem_post(&self->ended_);
  }
  void Wait(int64_t cancel_ns) {
    if (cancel_ns != 0) {
      const timespec at = AsTime(cancel_ns);
      int result;
      while ((result = sem_clockwait(&ended_, CLOCK_MONOTONIC, &at)) != 0 && errno == EINTR) {
      }
      if (result == 0) return;
      call_->Cancel();
    }
    while (sem_wait(&ended_) != 0) {
    }
  }

  const Plan& plan_;
  const Load& load_;
  Dice dice_;
  std::unique_ptr<Call> call_;
  sem_t ended_;
  int64_t done_ns_ = 0;
  std::vector<Record> records_;
};

// The arrivals of one open loop, taken by whichever thread is free.
class Arrivals {
 public:
  Arrivals(double rate, int64_t start_ns, uint64_t seed) : rate_(rate), next_ns_(start_ns), dice_(seed) {}
  int64_t Take() {
    std::lock_guard<std::mutex> lock(mu_);
    return next_ns_ += dice_.Gap(rate_);
  }

 private:
  const double rate_;
  std::mutex mu_;
  int64_t next_ns_;  // guarded by mu_
  Dice dice_;        // guarded by mu_
};

void RunClosed(Client* client, int64_t end_ns) {
  for (int64_t now_ns = NowNs(); now_ns < end_ns; now_ns = NowNs()) client->Run(now_ns);
}

void RunOpen(Client* client, Arrivals* arrivals, int64_t end_ns) {
  prctl(PR_SET_TIMERSLACK, 1UL);
  for (int64_t arrival_ns = arrivals->Take(); arrival_ns < end_ns; arrival_ns = arrivals->Take()) {
    const timespec at = AsTime(arrival_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
    }
    if (NowNs() < end_ns) {
      client->Run(arrival_ns);
    } else {
      client->records().push_back({arrival_ns});  // no thread was free before the end
    }
  }
}

}  // namespace

void DriveByThreads(const Plan& plan, int64_t begin_ns, int64_t end_ns, Outcome* outcome) {
  const int64_t start_ns = begin_ns - plan.warm_up_ns;
  std::vector<std::unique_ptr<Arrivals>> arrivals;
  std::vector<std::pair<size_t, std::unique_ptr<Client>>> clients;  // load → its clients
  std::vector<std::thread> threads;
  uint64_t seed = 1;
  for (size_t i = 0; i < plan.loads.size(); ++i) {
    const Load& load = plan.loads[i];
    arrivals.push_back(load.rate > 0 ? std::make_unique<Arrivals>(load.rate, start_ns, ++seed) : nullptr);
    for (int k = 0; k < (load.rate > 0 ? plan.open_threads : load.clients); ++k) {
      clients.emplace_back(i, std::make_unique<Client>(plan, load, ++seed));
    }
  }
  for (auto& [load, client] : clients) {
    if (arrivals[load] != nullptr) {
      threads.emplace_back(&RunOpen, client.get(), arrivals[load].get(), end_ns);
    } else {
      threads.emplace_back(&RunClosed, client.get(), end_ns);
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& [load, client] : clients) {
    std::vector<Record>& all = outcome->records[load];
    all.insert(all.end(), client->records().begin(), client->records().end());
  }
}

}  // namespace tessera::bench
