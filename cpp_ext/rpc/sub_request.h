// What one lookup asks of one server at once: some of its rows.
//
// Thread-safety: plain data; each group of fields says who guards it.
#ifndef TESSERA_CPP_EXT_RPC_SUB_REQUEST_H_
#define TESSERA_CPP_EXT_RPC_SUB_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpp_ext/rpc/lookup_rows.h"
#include "cpp_ext/rpc/lookup_size.h"
#include "cpp_ext/rpc/route.h"

struct TesseraLookup;

namespace tessera {

class LookupCall;

// Why a sub-request is sent.
enum class Cause { kFirst, kRetry, kHedge };

struct SubRequest {
  // Adds a row unless the message would then exceed `limits`; returns whether it did. Only while it is planned.
  bool TryAdd(const TesseraRoute& route, uint32_t table, uint32_t position, const LookupLimits& limits) {
    LookupSize grown = size;
    grown.AddRow(route.table(table), /*new_block=*/positions.empty() || table != last_table);
    if (!limits.Allow(grown)) return false;
    size = grown;
    last_table = table;
    positions.push_back(position);
    return true;
  }

  // Constant after construction.
  TesseraLookup* lookup = nullptr;  // owns it, and lives until it has been answered or withdrawn
  const std::vector<LookupRow>* rows = nullptr;
  size_t target = 0;
  Cause cause = Cause::kFirst;
  int64_t deadline_ns = 0;
  int64_t started_ns = 0;

  // Constant once planned.
  std::vector<uint32_t> positions;  // in `rows`
  LookupSize size;
  uint32_t last_table = 0;

  // Guarded by the lookup's lock.
  bool sent = false;     // given to its queue
  bool settled = false;  // answered, failed, or not sent after all
  bool shared = false;   // another one may ask for the same rows
  bool hedged = false;   // late, and its rows were asked for elsewhere where possible

  // Guarded by the lock of the queue that it is given to.
  enum class State : uint8_t { kNew, kWaiting, kInCall, kOver };
  State state = State::kNew;
  bool gone = false;           // in a call, but its lookup does not want the answer any more
  bool alone = false;          // must not share a call
  LookupCall* call = nullptr;  // when in one
  SubRequest* next = nullptr;  // in the queue or in the call
  SubRequest* previous = nullptr;
};

// What it costs a server, in bytes: those of its rows, and what any request costs besides.
inline int64_t WorkOf(const SubRequest& sub) {
  constexpr int64_t kRequestWork = 4096;
  return kRequestWork + static_cast<int64_t>(sub.size.rows_bytes);
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SUB_REQUEST_H_
