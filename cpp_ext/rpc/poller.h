// The threads of `_rpc`: each polls one completion queue and runs what comes out of it.
//
// A router's server and its fan-out share these queues, so that an answer of a shard server continues the request on
// a poller without a hand-over between threads.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_POLLER_H_
#define TESSERA_CPP_EXT_RPC_POLLER_H_

#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/clock.h"
#include "cpp_ext/rpc/admission.h"

namespace tessera {

// What is put on a completion queue.
class Tag {
 public:
  virtual ~Tag() = default;
  // Runs on a poller thread; must not block. May delete itself.
  virtual void Run(bool ok) = 0;
};

// A call that may wait for its turn, on the thread that took it.
class WaitingCall {
 public:
  // Runs it; `waited_ns` ago it came. Must not block.
  virtual void RunAfter(int64_t waited_ns) = 0;

 protected:
  ~WaitingCall() = default;
};

class Pollers {
 public:
  // Takes the queues; one thread will poll each. A thread on whose queue answers are awaited (BeginAwaiting) looks for
  // them for `busy_poll_ns` before it sleeps: waking a core that sleeps takes longer than a server on the same network.
  // REQUIRES: not empty.
  explicit Pollers(std::vector<std::unique_ptr<grpc::CompletionQueue>> queues, int64_t busy_poll_ns = 0);
  // Shuts the queues down if need be, runs what is left in them and joins the threads.
  ~Pollers();
  Pollers(const Pollers&) = delete;
  Pollers& operator=(const Pollers&) = delete;

  // Lets `burst` (abi.h), which must outlive the threads, see the events that are ready together. One for all; the
  // first that is set stays. REQUIRES: before Start.
  void SetBurst(const TesseraBurst* burst, void* context);
  // Starts the threads. REQUIRES: called once.
  void Start();

  // No new operation may be started on the queues after this; those in progress still end. Waits until the threads have
  // ended. REQUIRES: not called on a poller thread; whatever server uses the queues has been shut down. May be called
  // twice.
  void ShutdownAndJoin();

  // The queue for a call whose answer is awaited: of the poller that is calling, or one of the queues, in turn, on any
  // other thread. The tag that is put on it calls EndAwaiting when it runs.
  grpc::CompletionQueue* BeginAwaiting();
  // REQUIRES: on the poller of the queue that BeginAwaiting returned.
  static void EndAwaiting();

  size_t size() const { return lanes_.size(); }

  // Where a call that has just come is to be run: null for at once. A thread on which an event has taken long looks at
  // all that came meanwhile before it goes on; only so is it known how long each has waited, and how many there are.
  class Turns;
  static Turns* WaitForTurn();

 private:
  struct Lane {
    std::unique_ptr<grpc::CompletionQueue> queue;
    std::atomic<int64_t> awaited{0};
  };

  void Poll(Lane* lane);
  // Runs an event; if that takes long, everything that came meanwhile, calls in their turn.
  void Run(Lane* lane, void* tag, bool ok) const;
  // Runs `first`, and what is ready after it while the burst has something that waits for its end.
  template <typename First>
  void RunBurst(Lane* lane, Turns* turns, First first) const;
  // Runs what is ready but calls, which wait for their turn.
  static void Collect(Lane* lane, Turns* turns);
  // Looks for events without sleeping; false when the queue has been shut down and is empty.
  bool BusyPoll(Lane* lane) const;

  std::deque<Lane> lanes_;  // constant after construction but for the counters
  const int64_t busy_poll_ns_;
  const TesseraBurst* burst_ = nullptr;
  void* burst_context_ = nullptr;
  std::vector<std::thread> threads_;
  std::atomic<uint32_t> next_{0};
  std::atomic<bool> joined_{false};
};

// The calls that wait on one thread. Of that thread.
class Pollers::Turns {
 public:
  // Takes `call` behind those that wait already.
  void Add(WaitingCall* call) { waiting_.push_back({call, MonotonicNs()}); }
  size_t waiting() const { return waiting_.size(); }
  const Admission& admission() const { return admission_; }

 private:
  friend class Pollers;
  struct Waiting {
    WaitingCall* call;
    int64_t since_ns;
  };
  void RunNext();

  std::deque<Waiting> waiting_;  // bounded by the number of calls that a server takes
  Admission admission_;
  bool collecting_ = false;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_POLLER_H_
