// The way of sub-requests to one server: at most a few RPCs of a route are in flight to it, and what comes meanwhile
// shares the next one.
//
// Nothing waits for company: a sub-request that finds fewer in flight is sent at once, alone; the end of an RPC sends
// what waits, oldest first. A sub-request waits while its lookup does, and a lookup while its request does, so that the
// number of requests that a server admits bounds the queue. Every server has queues of its own: a slow one holds up
// nothing but what is meant for it, and that is asked elsewhere after the retry delay.
//
// Thread-safety: all methods may be called from any thread; nothing is called under the lock.
#ifndef TESSERA_CPP_EXT_RPC_SEND_QUEUE_H_
#define TESSERA_CPP_EXT_RPC_SEND_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "cpp_ext/rpc/lookup_size.h"
#include "cpp_ext/rpc/route.h"
#include "cpp_ext/rpc/sub_request.h"

namespace tessera {

class LookupCall;

class SendQueue {
 public:
  // To the target at position `target` of `route`, which owns the queue. `max_in_flight` 0: all are sent at once.
  SendQueue(TesseraRoute* route, size_t target, const LookupLimits& limits, uint32_t max_in_flight);
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  enum class Submitted {
    kSent,       // in an RPC of its own, with its own deadline
    kQueued,     // will share an RPC, or did; whose deadline may be later
    kWithdrawn,  // before it came here; nothing else happens to it
  };
  // Sends `sub` now or later. Ends in exactly one TesseraLookup::OnAnswer, possibly before this returns, unless it is
  // withdrawn.
  Submitted Submit(SubRequest* sub);

  // Says that the answer is not wanted any more. Returns true if it waited: there will be no answer. Otherwise the
  // answer still comes, if it has not; an RPC that nobody wants any more is cancelled.
  bool Withdraw(SubRequest* sub);

 private:
  friend class LookupCall;

  // Makes the next RPC of what waits; null if nothing does, or enough are in flight. REQUIRES: mu_ is held.
  LookupCall* TakeNext();
  // Starts `call`, which may be null, and what may follow it at once.
  void Start(LookupCall* call);

  void PushBack(SubRequest* sub);
  void PushFront(SubRequest* sub);
  void Unlink(SubRequest* sub);

  // Constant after construction.
  TesseraRoute* const route_;
  const size_t target_;
  const LookupLimits limits_;
  const uint32_t max_in_flight_;

  // Guarded by mu_.
  std::mutex mu_;
  SubRequest* head_ = nullptr;
  SubRequest* tail_ = nullptr;
  uint32_t in_flight_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SEND_QUEUE_H_
