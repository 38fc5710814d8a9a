#include "cpp_ext/rpc/retry_timer.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "cpp_ext/base/clock.h"

namespace tessera {

void TimerList::Append(TimerEntry* entry, int64_t at_ns) {
  entry->at_ns_ = at_ns;
  entry->listed_ = true;
  entry->next_ = nullptr;
  entry->previous_ = tail_;
  (tail_ == nullptr ? head_ : tail_->next_) = entry;
  tail_ = entry;
}

bool TimerList::Remove(TimerEntry* entry) {
  if (!entry->listed_) return false;
  entry->listed_ = false;
  (entry->previous_ == nullptr ? head_ : entry->previous_->next_) = entry->next_;
  (entry->next_ == nullptr ? tail_ : entry->next_->previous_) = entry->previous_;
  return true;
}

TimerEntry* TimerList::PopDue(int64_t now_ns) {
  TimerEntry* const head = head_;
  if (head == nullptr || head->at_ns_ > now_ns) return nullptr;
  Remove(head);
  return head;
}

namespace {

// Shared by the timer and its thread, which may be the one that destroys the timer.
struct State {
  std::mutex mu;
  std::condition_variable changed;
  TimerList waiting;         // guarded by mu
  bool sleeps_idle = false;  // guarded by mu: the thread waits for the first entry
  bool stopped = false;      // guarded by mu
};

void Run(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mu);
  while (!state->stopped) {
    if (state->waiting.empty()) {
      state->sleeps_idle = true;
      state->changed.wait(lock);
      state->sleeps_idle = false;
      continue;
    }
    if (TimerEntry* const due = state->waiting.PopDue(MonotonicNs()); due != nullptr) {
      lock.unlock();
      due->OnTimer();
      lock.lock();
      continue;
    }
    // Later entries are due later, and a removed head only makes this wake once for nothing: no need to be told.
    // steady_clock is CLOCK_MONOTONIC.
    state->changed.wait_until(
        lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(state->waiting.head_at_ns())));
  }
}

class ThreadRetryTimer final : public RetryTimer {
 public:
  ThreadRetryTimer() : state_(std::make_shared<State>()), thread_([state = state_] { Run(state); }) {
    pthread_setname_np(thread_.native_handle(), "tessera-retry");
  }

  ~ThreadRetryTimer() override {
    {
      std::lock_guard<std::mutex> lock(state_->mu);
      state_->stopped = true;
    }
    state_->changed.notify_one();
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();  // an entry held the last reference to the timer's owner
    } else {
      thread_.join();
    }
  }

  void Schedule(TimerEntry* entry, int64_t at_ns) override {
    bool wake;
    {
      std::lock_guard<std::mutex> lock(state_->mu);
      state_->waiting.Append(entry, at_ns);
      wake = state_->sleeps_idle;
    }
    if (wake) state_->changed.notify_one();
  }

  bool Remove(TimerEntry* entry) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    return state_->waiting.Remove(entry);
  }

 private:
  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<RetryTimer> MakeThreadRetryTimer() { return std::make_unique<ThreadRetryTimer>(); }

}  // namespace tessera
