// Tells lookups that their retry delay is over.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_
#define TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_

#include <cstdint>
#include <memory>

namespace tessera {

// What waits in a RetryTimer; the links belong to the timer.
class TimerEntry {
 public:
  // Runs on the timer's thread, outside of its lock; must not block.
  virtual void OnTimer() = 0;

 protected:
  ~TimerEntry() = default;

 private:
  friend class TimerList;
  TimerEntry* next_ = nullptr;
  TimerEntry* previous_ = nullptr;
  int64_t at_ns_ = 0;
  bool listed_ = false;
};

class RetryTimer {
 public:
  virtual ~RetryTimer() = default;
  // Calls entry->OnTimer() once, at `at_ns` of CLOCK_MONOTONIC or a little later. Entries are served in the order in
  // which they were scheduled, so `at_ns` should not decrease: all wait the same time. REQUIRES: entry does not wait
  // already and lives until OnTimer has run or Remove has returned true.
  virtual void Schedule(TimerEntry* entry, int64_t at_ns) = 0;
  // Returns whether the entry was waiting; then OnTimer will not run.
  virtual bool Remove(TimerEntry* entry) = 0;
};

// A list of waiting entries in the order of scheduling, for implementations. Not thread-safe.
class TimerList {
 public:
  bool empty() const { return head_ == nullptr; }
  int64_t head_at_ns() const { return head_->at_ns_; }
  void Append(TimerEntry* entry, int64_t at_ns);
  bool Remove(TimerEntry* entry);
  // Removes and returns the head if it is due, else null.
  TimerEntry* PopDue(int64_t now_ns);

 private:
  TimerEntry* head_ = nullptr;
  TimerEntry* tail_ = nullptr;
};

// With a thread that sleeps for as long as nothing waits, and at most wakes once per retry delay while lookups come and
// go.
std::unique_ptr<RetryTimer> MakeThreadRetryTimer();

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_
