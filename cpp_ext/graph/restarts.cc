#include "cpp_ext/graph/restarts.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC

}  // namespace

Restarts::~Restarts() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Restarts::Wait(Waiter* waiter, uint64_t seen, int64_t until_ns) {
  std::lock_guard<std::mutex> lock(mu_);
  waiter->until_ns_ = until_ns;
  waiter->waits_ = true;
  waiter->place_ = waiting_.insert(waiting_.end(), waiter);
  if (seen != changes_) MakeDue(waiter);
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), "tessera-restart");
  }
  changed_.notify_one();
}

void Restarts::WakeAll() {
  std::lock_guard<std::mutex> lock(mu_);
  ++changes_;
  while (!waiting_.empty()) MakeDue(waiting_.front());
  changed_.notify_one();
}

void Restarts::Wake(Waiter* waiter) {
  std::lock_guard<std::mutex> lock(mu_);
  if (!waiter->waits_) return;
  MakeDue(waiter);
  changed_.notify_one();
}

uint64_t Restarts::changes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return changes_;
}

size_t Restarts::waiting() const {
  std::lock_guard<std::mutex> lock(mu_);
  return waiting_.size() + due_.size();
}

void Restarts::MakeDue(Waiter* waiter) {
  waiter->waits_ = false;
  due_.splice(due_.end(), waiting_, waiter->place_);
}

void Restarts::Run() {
  std::unique_lock<std::mutex> lock(mu_);
  while (!ending_) {
    if (!due_.empty()) {
      Waiter* const waiter = due_.front();
      due_.pop_front();
      lock.unlock();
      waiter->OnWoken();
      lock.lock();
      continue;
    }
    const int64_t next_ns = MakeLateDue();
    if (!due_.empty()) continue;
    if (next_ns == INT64_MAX) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, Clock::time_point(std::chrono::nanoseconds(next_ns)));
    }
  }
}

int64_t Restarts::MakeLateDue() {
  const int64_t now_ns = std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
  int64_t next_ns = INT64_MAX;
  for (auto place = waiting_.begin(); place != waiting_.end();) {
    Waiter* const waiter = *place++;
    if (waiter->until_ns_ <= now_ns) {
      MakeDue(waiter);
    } else {
      next_ns = std::min(next_ns, waiter->until_ns_);
    }
  }
  return next_ns;
}

}  // namespace tessera
