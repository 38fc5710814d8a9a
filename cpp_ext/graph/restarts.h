// Requests whose placement was outdated while they ran: they wait for a newer one, to be run again as a whole.
//
// Thread-safe.
#ifndef TESSERA_CPP_EXT_GRAPH_RESTARTS_H_
#define TESSERA_CPP_EXT_GRAPH_RESTARTS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>

namespace tessera {

class Restarts {
 public:
  // What waits. The fields belong to Restarts.
  class Waiter {
   public:
    // Runs once for each Wait, on the thread of Restarts: after the next Wake, or at the time that was given.
    virtual void OnWoken() = 0;

   protected:
    ~Waiter() = default;

   private:
    friend class Restarts;
    std::list<Waiter*>::iterator place_;
    int64_t until_ns_ = 0;
    bool waits_ = false;
  };

  static constexpr uint64_t kNever = UINT64_MAX;

  Restarts() = default;
  // REQUIRES: nothing waits; not on the thread of this object.
  ~Restarts();
  Restarts(const Restarts&) = delete;
  Restarts& operator=(const Restarts&) = delete;

  // `seen` is what `changes` returned before the waiter looked, kNever if it did not look: what changed since wakes it
  // at once. REQUIRES: `waiter` does not wait; it lives until OnWoken has run. The number of requests in flight bounds
  // what waits.
  void Wait(Waiter* waiter, uint64_t seen, int64_t until_ns);
  // Wakes all: there may be a newer placement.
  void WakeAll();
  // Wakes one, if it waits.
  void Wake(Waiter* waiter);

  // How often WakeAll was called.
  uint64_t changes() const;
  size_t waiting() const;

 private:
  void Run();
  // REQUIRES, here and below: mu_ is held.
  void MakeDue(Waiter* waiter);
  // Makes those due whose time is over; returns when the next one's is, INT64_MAX without one.
  int64_t MakeLateDue();

  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::list<Waiter*> waiting_;  // guarded by mu_
  std::list<Waiter*> due_;      // guarded by mu_
  uint64_t changes_ = 0;        // guarded by mu_
  bool ending_ = false;         // guarded by mu_
  std::thread thread_;          // starts with the first waiter; written under mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_RESTARTS_H_
