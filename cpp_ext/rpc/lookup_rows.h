// The rows that one lookup needs, each once, and where they go.
//
// Thread-safety: plain values and pure functions.
#ifndef TESSERA_CPP_EXT_RPC_LOOKUP_ROWS_H_
#define TESSERA_CPP_EXT_RPC_LOOKUP_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/route.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {

struct LookupRow {
  // Constant once collected.
  uint64_t id;
  uint8_t* to;  // the first place in the output
  uint32_t table;
  uint16_t slot;
  // Guarded by the lookup's lock.
  uint16_t tried = 0;     // bit i: replica i of the slot was asked
  uint8_t in_flight = 0;  // sub-requests that ask for it now
  bool done = false;      // kept only for rows that two servers were asked for
};

// Another place in the output for a row.
struct LookupRepeat {
  const uint8_t* from;
  uint8_t* to;
  size_t row_bytes;
};

// Lists the distinct rows of all gathers, in the order in which they first appear.
// INVALID_ARGUMENT: an id, a table or a width is out of range; names it. RESOURCE_EXHAUSTED: 2^32 ids or more.
// Cost: a few ns per id; memory of 32 bytes per id until the lookup ends, and a table per thread, given back when
// large.
Status CollectRows(const TesseraRoute& route, const TesseraGather* gathers, size_t gathers_count,
                   std::vector<LookupRow>* rows, std::vector<LookupRepeat>* repeats);

// Adds the rows at `positions` to a request: a block for each run of rows of one table.
void AppendRows(const TesseraRoute& route, const std::vector<LookupRow>& rows, const std::vector<uint32_t>& positions,
                LookupRequestWriter* writer);

// Copies the rows at `positions`, which follow each other at `from`, to their places. `only_missing` leaves out those
// that are done, and marks the others so. Returns how many were copied.
size_t ScatterRows(const TesseraRoute& route, std::vector<LookupRow>* rows, const std::vector<uint32_t>& positions,
                   const uint8_t* from, bool only_missing);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_ROWS_H_
