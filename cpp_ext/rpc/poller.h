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

namespace tessera {

// What is put on a completion queue.
class Tag {
 public:
  virtual ~Tag() = default;
  // Runs on a poller thread; must not block. May delete itself.
  virtual void Run(bool ok) = 0;
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

 private:
  struct Lane {
    std::unique_ptr<grpc::CompletionQueue> queue;
    std::atomic<int64_t> awaited{0};
  };

  void Poll(Lane* lane);
  // Runs an event, and those that are ready after it while the burst has something that waits for its end.
  void Run(Lane* lane, void* tag, bool ok) const;
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

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_POLLER_H_
