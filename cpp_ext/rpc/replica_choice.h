// Which replica a row is asked from next.
#ifndef TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_
#define TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_

#include <cstddef>
#include <cstdint>

#include "cpp_ext/rpc/lookup_rows.h"
#include "cpp_ext/rpc/route.h"

namespace tessera {

// The choices of one plan: what is thought of a server, and how much it has to do, is asked once, so that rows with the
// same replicas go the same way. A suspect server that lets a probe through gets it from all rows of the plan.
// Thread-safety: at most one lives per thread at a time; `route` must outlive it.
class ReplicaChoice {
 public:
  ReplicaChoice(const TesseraRoute& route, int64_t now_ns);

  // Returns the best replica of the row's slot that was not tried yet and can be reached, -1 if there is none. Of those
  // that are thought of best, the first and one other, drawn by chance, are compared: the one with less to do gets the
  // row, the first where both have the same. So rows go to the same replica, whose memory has them, as long as it keeps
  // up.
  int Best(const LookupRow& row);

 private:
  // The better, the smaller.
  enum Opinion : uint8_t { kProbed, kFine, kAvoided, kEjected, kSuspect };
  Opinion OpinionOf(size_t target);

  const TesseraRoute& route_;
  const int64_t now_ns_;
};

// Whether Best would find one.
bool HasUntriedReplica(const TesseraRoute& route, const LookupRow& row);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_
