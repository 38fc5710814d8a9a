// The threads that REST requests are decoded, run and encoded on, when not on the thread that brought them.
#ifndef TESSERA_CPP_EXT_GRAPH_REST_POOL_H_
#define TESSERA_CPP_EXT_GRAPH_REST_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera {

// Thread-safe. What waits is bounded by the requests in flight.
class RestPool {
 public:
  explicit RestPool(size_t threads);
  ~RestPool() { Stop(); }
  RestPool(const RestPool&) = delete;
  RestPool& operator=(const RestPool&) = delete;

  // False after Stop; `task` is dropped then.
  bool Submit(std::function<void()> task);
  // Runs what waits and ends the threads. May be called twice; not from a task.
  void Stop();

 private:
  void Work();

  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> waiting_;  // guarded by mu_
  bool stopping_ = false;                      // guarded by mu_
  std::vector<std::thread> threads_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REST_POOL_H_
