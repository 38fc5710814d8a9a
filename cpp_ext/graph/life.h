// Tells others when an object is gone.
#ifndef TESSERA_CPP_EXT_GRAPH_LIFE_H_
#define TESSERA_CPP_EXT_GRAPH_LIFE_H_

#include <condition_variable>
#include <memory>
#include <mutex>

#include "absl/time/time.h"

namespace tessera {

// Outlives what it tells of. Thread-safe.
class LifeWatch {
 public:
  bool ended() const {
    std::lock_guard<std::mutex> lock(mu_);
    return ended_;
  }
  // Returns whether it ended within `timeout`.
  bool Wait(absl::Duration timeout) const {
    std::unique_lock<std::mutex> lock(mu_);
    return end_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return ended_; });
  }

 private:
  friend class Life;
  mutable std::mutex mu_;
  mutable std::condition_variable end_;
  bool ended_ = false;  // guarded by mu_
};

// REQUIRES: the first member of what it tells of, so that it is destroyed last, when all memory is free again.
class Life {
 public:
  Life() = default;
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;
  ~Life() {
    std::lock_guard<std::mutex> lock(watch_->mu_);
    watch_->ended_ = true;
    watch_->end_.notify_all();
  }
  std::shared_ptr<const LifeWatch> watch() const { return watch_; }

 private:
  const std::shared_ptr<LifeWatch> watch_ = std::make_shared<LifeWatch>();
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_LIFE_H_
