#include "cpp_ext/graph/worker_pool.h"

#include <limits>
#include <utility>

namespace tessera {

bool WorkerPool::Submit(std::function<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (waiting_.size() >= max_waiting_) return false;
    waiting_.push_back(std::move(task));
    if (idle_ < waiting_.size() && workers_.size() < threads_) workers_.emplace_back([this] { Work(); });
  }
  wake_.notify_one();
  return true;
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::Work() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    while (waiting_.empty() && !ending_) {
      ++idle_;
      wake_.wait(lock);
      --idle_;
    }
    if (ending_) return;
    std::function<void()> task = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds is freed without the lock
    lock.lock();
  }
}

WorkerPool& WorkerPool::Sessions() {
  static WorkerPool* pool = new WorkerPool(/*threads=*/4, /*max_waiting=*/1024);
  return *pool;
}

WorkerPool& WorkerPool::Background() {
  static WorkerPool* pool = new WorkerPool(/*threads=*/1, std::numeric_limits<size_t>::max());
  return *pool;
}

}  // namespace tessera
