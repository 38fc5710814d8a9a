#include "cpp_ext/rpc/retry_timer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "cpp_ext/base/clock.h"

namespace tessera {

void TimerList::Append(TimerEntry* entry, int64_t at_ns) {
  entry->at_ns_ = at_ns;
  entry->where_ = TimerEntry::Where::kInOrder;
  entry->next_ = nullptr;
  entry->previous_ = tail_;
  (tail_ == nullptr ? head_ : tail_->next_) = entry;
  tail_ = entry;
}

void TimerList::Insert(TimerEntry* entry, int64_t at_ns) {
  entry->at_ns_ = at_ns;
  entry->where_ = TimerEntry::Where::kByTime;
  by_time_.emplace(at_ns, entry);
}

bool TimerList::Remove(TimerEntry* entry) {
  const TimerEntry::Where where = std::exchange(entry->where_, TimerEntry::Where::kNowhere);
  if (where == TimerEntry::Where::kNowhere) return false;
  if (where == TimerEntry::Where::kByTime) return by_time_.erase({entry->at_ns_, entry}) != 0;
  (entry->previous_ == nullptr ? head_ : entry->previous_->next_) = entry->next_;
  (entry->next_ == nullptr ? tail_ : entry->next_->previous_) = entry->previous_;
  return true;
}

TimerEntry* TimerList::PopDue(int64_t now_ns) {
  if (next_at_ns() > now_ns) return nullptr;
  const bool in_order = head_ != nullptr && head_->at_ns_ <= now_ns;
  TimerEntry* const due = in_order ? head_ : by_time_.begin()->second;
  Remove(due);
  return due;
}

int64_t TimerList::next_at_ns() const {
  int64_t at_ns = head_ == nullptr ? INT64_MAX : head_->at_ns_;
  if (!by_time_.empty()) at_ns = std::min(at_ns, by_time_.begin()->first);
  return at_ns;
}

namespace {

// Shared by the timer and its thread, which may be the one that destroys the timer.
struct State {
  std::mutex mu;
  std::condition_variable changed;
  TimerList waiting;            // guarded by mu
  int64_t sleeps_until_ns = 0;  // guarded by mu: INT64_MAX when nothing waited; 0 when awake
  bool stopped = false;         // guarded by mu
};

void Run(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mu);
  while (!state->stopped) {
    if (TimerEntry* const due = state->waiting.PopDue(MonotonicNs()); due != nullptr) {
      lock.unlock();
      due->OnTimer();
      lock.lock();
      continue;
    }
    // Of a removed entry nobody needs to tell: this wakes once for nothing. steady_clock is CLOCK_MONOTONIC.
    state->sleeps_until_ns = state->waiting.next_at_ns();
    if (state->sleeps_until_ns == INT64_MAX) {
      state->changed.wait(lock);
    } else {
      state->changed.wait_until(
          lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(state->sleeps_until_ns)));
    }
    state->sleeps_until_ns = 0;
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
    std::unique_lock<std::mutex> lock(state_->mu);
    state_->waiting.Append(entry, at_ns);
    WakeBefore(at_ns, &lock);
  }

  void ScheduleDeadline(TimerEntry* entry, int64_t at_ns) override {
    std::unique_lock<std::mutex> lock(state_->mu);
    state_->waiting.Insert(entry, at_ns);
    WakeBefore(at_ns, &lock);
  }

  bool Remove(TimerEntry* entry) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    return state_->waiting.Remove(entry);
  }

 private:
  // Releases the lock. The thread is told only of what is due before it wakes by itself.
  void WakeBefore(int64_t at_ns, std::unique_lock<std::mutex>* lock) {
    if (at_ns >= state_->sleeps_until_ns) return lock->unlock();
    state_->sleeps_until_ns = at_ns;
    lock->unlock();
    state_->changed.notify_one();
  }

  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<RetryTimer> MakeThreadRetryTimer() { return std::make_unique<ThreadRetryTimer>(); }

}  // namespace tessera
