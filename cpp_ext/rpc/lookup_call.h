// One Lookup RPC in progress, and the sub-requests of one lookup or several that it carries.
//
// Thread-safety: Start and the end of the RPC synchronise themselves; the rest happens under the queue's lock.
#ifndef TESSERA_CPP_EXT_RPC_LOOKUP_CALL_H_
#define TESSERA_CPP_EXT_RPC_LOOKUP_CALL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/lookup_size.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/send_queue.h"
#include "cpp_ext/rpc/sub_request.h"
#include "cpp_ext/rpc/transport.h"

namespace tessera {

// What an RPC brought.
struct LookupVerdict {
  // OK: `rows` are those of all members, one after the other. Otherwise a text for the messages of lookups.
  Status status;
  const uint8_t* rows = nullptr;
  // Every server would say the same.
  bool final = false;
  // May be the fault of one member, or of their number.
  bool blames_request = false;
};

class LookupCall {
 public:
  // REQUIRES, here, for Add and for Leave: the queue's lock is held.
  LookupCall(SendQueue* queue, SubRequest* first);
  LookupCall(const LookupCall&) = delete;
  LookupCall& operator=(const LookupCall&) = delete;

  void Add(SubRequest* sub);
  // Returns what is to be cancelled now that nobody wants the answer, null if someone does or it is not known yet.
  std::shared_ptr<TransportCall> Leave(SubRequest* sub);
  const LookupSize& size() const { return size_; }

  // Sends it; once. Returns whether it has ended already and has left it to the caller to send the queue's next one.
  // It may be gone afterwards.
  bool Start();

 private:
  ~LookupCall() = default;

  std::string Request() const;
  int64_t Deadline() const;
  void CountStart();
  void OnDone(Status status, const uint8_t* response, size_t response_size);
  // Says what an answer is worth, and trusts or suspects the server accordingly. `wanted`: by any member.
  LookupVerdict Judge(Status status, const uint8_t* response, size_t response_size, bool wanted, int64_t now_ns) const;
  // Puts those that are still wanted back to the queue's front, to be sent alone. Returns the others. REQUIRES: the
  // queue's lock is held.
  SubRequest* SendAgainAlone();
  // Tells `members` what came; they may be gone afterwards.
  static void Tell(SubRequest* members, const LookupVerdict& verdict);
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // Constant after construction.
  SendQueue* const queue_;
  const Ref<TesseraRoute> route_;  // owns the queue

  // Constant once started.
  SubRequest* first_;
  SubRequest* last_;
  size_t members_ = 1;
  LookupSize size_;
  int64_t started_ns_ = 0;

  // Own synchronisation.
  std::atomic<int> references_{2};    // Start's and the RPC's
  std::atomic<size_t> wanted_by_{1};  // written under the queue's lock

  // Guarded by the queue's lock.
  bool start_returned_ = false;
  bool ended_ = false;
  std::shared_ptr<TransportCall> call_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_CALL_H_
