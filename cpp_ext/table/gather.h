// Copies rows that lie anywhere in memory into one run of bytes, as fast as memory allows.
//
// Thread-safety: pure functions of their arguments.
#ifndef TESSERA_CPP_EXT_TABLE_GATHER_H_
#define TESSERA_CPP_EXT_TABLE_GATHER_H_

#include <cstddef>
#include <cstdint>

#include "cpp_ext/table/held_table.h"

namespace tessera {

// Rows of one table, as in LookupBlock.
struct GatherBlock {
  const HeldTable* table = nullptr;
  uint32_t id_width_bytes = 4;  // 4 or 8
  const uint8_t* rows = nullptr;
  size_t rows_count = 0;
};

enum class GatherOutcome { kDone, kNoSuchRow, kNotHeld };

struct GatherResult {
  GatherOutcome outcome = GatherOutcome::kDone;
  // The first row that could not be had.
  size_t block = 0;
  uint64_t row = 0;
};

// Writes all rows of all blocks, one after the other, to `to`, which has room for them. When a row cannot be had, `to`
// holds an unspecified part of the others.
//
// While some rows are copied, the next ones are already on their way from memory, across the borders of blocks too: a
// lookup of one row in each of many tables is as quick as one of many rows in one table.
GatherResult Gather(const GatherBlock* blocks, size_t blocks_count, uint8_t* to);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_GATHER_H_
