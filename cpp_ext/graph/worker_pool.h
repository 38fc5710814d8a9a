// A few threads for the work that must not run on a poller.
#ifndef TESSERA_CPP_EXT_GRAPH_WORKER_POOL_H_
#define TESSERA_CPP_EXT_GRAPH_WORKER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera {

// Thread-safe. The process's pools are never destroyed: their threads would
// have to be joined by themselves when the last user of a graph is one of their
// tasks.
class WorkerPool {
 public:
  WorkerPool(size_t threads, size_t max_waiting) : threads_(threads), max_waiting_(max_waiting) {}
  // Waits for the tasks that run; those that wait are dropped. REQUIRES: not on a thread of the pool.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `task` later on a thread of the pool; returns false, and drops it,
  // when `max_waiting` tasks wait already.
  bool Submit(std::function<void()> task);

  // For signatures that need TensorFlow's session: 4 threads, 1,024 waiting.
  static WorkerPool& Sessions();
  // For short things that must not run on the stack that asks for them:
  // cancelling, freeing a graph. One thread; the number of requests in flight
  // bounds what waits.
  static WorkerPool& Background();

 private:
  void Work();

  const size_t threads_;
  const size_t max_waiting_;
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> waiting_;  // guarded by mu_
  std::vector<std::thread> workers_;           // guarded by mu_; threads start when first needed
  bool ending_ = false;                        // guarded by mu_
  size_t idle_ = 0;                            // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_WORKER_POOL_H_
