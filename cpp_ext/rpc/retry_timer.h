// Tells lookups that their retry delay is over, or their deadline has passed.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_
#define TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <utility>

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
  enum class Where : uint8_t { kNowhere, kInOrder, kByTime };
  TimerEntry* next_ = nullptr;
  TimerEntry* previous_ = nullptr;
  int64_t at_ns_ = 0;
  Where where_ = Where::kNowhere;
};

class RetryTimer {
 public:
  virtual ~RetryTimer() = default;
  // Calls entry->OnTimer() once, at `at_ns` of CLOCK_MONOTONIC or a little later. Entries are served in the order in
  // which they were scheduled, so `at_ns` should not decrease: all wait the same time. REQUIRES: entry does not wait
  // already and lives until OnTimer has run or Remove has returned true.
  virtual void Schedule(TimerEntry* entry, int64_t at_ns) = 0;
  // The same at any time, in the order of the times. Costs a search among those scheduled by this.
  virtual void ScheduleDeadline(TimerEntry* entry, int64_t at_ns) = 0;
  // Returns whether the entry was waiting; then OnTimer will not run.
  virtual bool Remove(TimerEntry* entry) = 0;
};

// The waiting entries, for implementations. Not thread-safe.
class TimerList {
 public:
  // When the next one is due; INT64_MAX if none waits.
  int64_t next_at_ns() const;
  void Append(TimerEntry* entry, int64_t at_ns);
  void Insert(TimerEntry* entry, int64_t at_ns);
  bool Remove(TimerEntry* entry);
  // Removes and returns one that is due, or null.
  TimerEntry* PopDue(int64_t now_ns);

 private:
  TimerEntry* head_ = nullptr;
  TimerEntry* tail_ = nullptr;
  std::set<std::pair<int64_t, TimerEntry*>> by_time_;
};

// With a thread that sleeps for as long as nothing waits, and at most wakes once per retry delay while lookups come and
// go.
std::unique_ptr<RetryTimer> MakeThreadRetryTimer();

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_RETRY_TIMER_H_
