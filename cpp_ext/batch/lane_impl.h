// The inside of BatchLane: the scheduler, its lock, and the threads that act on what it says. Private to the lane.
#ifndef TESSERA_CPP_EXT_BATCH_LANE_IMPL_H_
#define TESSERA_CPP_EXT_BATCH_LANE_IMPL_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/batch/scheduler.h"

namespace tessera {

// Who may run what:
//  * a batch whose runner does not occupy the thread starts on whatever thread finds that it may start;
//  * one that does runs on a worker, or on the thread that brought its only task, if it is expected to be short.
// On one stack a lane is entered once: what is enqueued from inside a Run or a Done waits until the outermost frame
// looks again, so no recursion, and a loop that one request runs alone stays on its thread.
class BatchLane::Impl {
 public:
  Impl(std::string name, const LaneOptions& options);
  ~Impl();

  // Runs `decide(now_ns, &actions)` under the lock, then does what follows from it. `brought`: the single task that
  // this thread has just enqueued, or null.
  template <typename Decide>
  void Enter(const BatchTask* brought, Decide decide) {
    BatchScheduler::Actions actions;
    std::unique_lock<std::mutex> lock(mu_);
    const int64_t now_ns = MonotonicNs();
    decide(now_ns, &actions);
    Follow(&lock, now_ns, brought, &actions);
  }
  // Runs `read` under the lock.
  template <typename Read>
  auto Locked(Read read) {
    std::lock_guard<std::mutex> lock(mu_);
    return read();
  }

  // See BatchLane.
  static void BeginBurst() { burst_ = {true, nullptr, 0}; }
  static bool BurstPending() { return burst_.lane != nullptr && MonotonicNs() < burst_.until_ns; }
  static void EndBurst();

  const std::string name;
  const LaneOptions options;
  BatchScheduler scheduler;    // guarded by mu_
  uint64_t timer_wakeups = 0;  // guarded by mu_

 private:
  using Lock = std::unique_lock<std::mutex>;
  enum class Kind : uint8_t { kCaller, kWorker, kTimer };

  // The outermost entry into a lane on this thread's stack.
  struct Frame {
    BatchLane::Impl* const lane;
    const Kind kind;
    const BatchTask* brought = nullptr;  // the last single task that this thread enqueued
    size_t ahead = 0;                    // what this frame does before it looks again
    int foreign_starts = 0;              // batches of others that a caller's thread started
    int burst_batches = 0;               // short batches that the end of a burst may still run here
  };
  static thread_local Frame* frame_;

  // What a thread that handles several requests has brought and not run yet: of one lane, the last one.
  struct Burst {
    bool active = false;
    BatchLane::Impl* lane = nullptr;
    int64_t until_ns = 0;
  };
  static thread_local Burst burst_;

  // Threads to wake once the lock is free, so that they do not run into it.
  struct Wakes {
    bool worker = false;
    bool timer = false;
  };

  void Follow(Lock* lock, int64_t now_ns, const BatchTask* brought, BatchScheduler::Actions* actions);
  // Leaves what the thread has brought to the end of its burst. False: there is no burst, or somebody else runs it.
  bool Defer(int64_t now_ns, Wakes* wakes);
  void FollowInside(Lock* lock, int64_t now_ns, const BatchTask* brought, BatchScheduler::Actions* actions);
  // Starts what this thread may run, again and again; wakes others for the rest. Returns when the scheduler has
  // something for this thread to look at, with the lock held.
  int64_t Pump(Lock* lock, Frame* self);
  bool MayRun(const Frame& self, const BatchScheduler::Next& next) const;
  // Whether this thread brought what is next.
  static bool Brought(const Frame& self, const BatchScheduler::Next& next);
  // Returns whether a worker will look. Starts one if none is idle.
  bool WakeWorker(Wakes* wakes);
  void ArmTimer(int64_t event_ns, Wakes* wakes);
  void Notify(const Wakes& wakes);
  // REQUIRES: no lock, a frame.
  static void Deliver(BatchScheduler::Actions* actions);
  void WorkerMain();
  void TimerMain();
  void Leave();  // ends a visit

  static constexpr int64_t kTimerAwake = INT64_MIN;

  std::mutex mu_;
  // All below are guarded by mu_.
  std::condition_variable work_, timer_, left_;
  std::vector<std::thread> workers_;
  size_t idle_workers_ = 0;
  bool worker_called_ = false;         // a worker was woken or started and has not looked yet
  int64_t timer_at_ns_ = kTimerAwake;  // when the timer's thread looks next
  int64_t visits_ = 0;                 // threads that do something for the lane
  bool closing_ = false, stopped_ = false;
  std::thread timer_thread_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_LANE_IMPL_H_
