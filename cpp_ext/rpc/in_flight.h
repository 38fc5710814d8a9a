// The lookups that have calls in flight, so that stopping can cancel them and wait for them.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_IN_FLIGHT_H_
#define TESSERA_CPP_EXT_RPC_IN_FLIGHT_H_

#include <array>
#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "cpp_ext/base/abi.h"

namespace tessera {

// A lookup's place in the list; the fields belong to InFlight.
struct InFlightLink {
  TesseraLookup* next = nullptr;
  TesseraLookup* previous = nullptr;
  size_t shard = 0;
};

class InFlight {
 public:
  // Returns false when closed. Threads use different shards, so that they rarely meet at a lock.
  bool Add(TesseraLookup* lookup);
  // Undoes an Add that returned true.
  void Remove(TesseraLookup* lookup);

  // Refuses further ones, cancels all and waits until each has been removed.
  void CloseAndWait();

 private:
  static constexpr size_t kShards = 16;
  struct alignas(64) Shard {
    std::mutex mu;
    std::condition_variable emptied;
    TesseraLookup* head = nullptr;  // guarded by mu
    bool closed = false;            // guarded by mu
  };

  std::array<Shard, kShards> shards_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_IN_FLIGHT_H_
