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
#include <memory>
#include <thread>
#include <vector>

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
  // Takes the queues; one thread will poll each. REQUIRES: not empty.
  explicit Pollers(std::vector<std::unique_ptr<grpc::CompletionQueue>> queues);
  // Shuts the queues down if need be, runs what is left in them and joins the threads.
  ~Pollers();
  Pollers(const Pollers&) = delete;
  Pollers& operator=(const Pollers&) = delete;

  // Starts the threads. REQUIRES: called once.
  void Start();

  // No new operation may be started on the queues after this; those in progress still end. Waits until the threads have
  // ended. REQUIRES: not called on a poller thread; whatever server uses the queues has been shut down. May be called
  // twice.
  void ShutdownAndJoin();

  // The queue of the poller that is calling, or one of the queues, in turn, on any other thread.
  grpc::CompletionQueue* ThisThreadsQueue();

  size_t size() const { return queues_.size(); }

 private:
  void Poll(grpc::CompletionQueue* queue);

  const std::vector<std::unique_ptr<grpc::CompletionQueue>> queues_;
  std::vector<std::thread> threads_;
  std::atomic<uint32_t> next_{0};
  std::atomic<bool> joined_{false};
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_POLLER_H_
