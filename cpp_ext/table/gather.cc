#include "cpp_ext/table/gather.h"

#include <algorithm>
#include <cstring>

#include "cpp_ext/base/hash.h"

namespace tessera {
namespace {

constexpr size_t kCacheLineBytes = 64;
// Rows located and prefetched together. Two such groups are under way: more than a core can have misses outstanding,
// and little enough to stay in its nearest cache.
constexpr size_t kGroupRows = 32;
// The first lines of a row are asked for; what follows is a long run that the hardware fetches ahead by itself.
constexpr size_t kPrefetchBytes = 512;

// Rows of one length that follow each other in a group.
struct Run {
  size_t rows_count;
  size_t row_bytes;
};

struct Group {
  const uint8_t* rows[kGroupRows];
  Run runs[kGroupRows];
  size_t rows_count = 0;
  size_t runs_count = 0;
};

inline void Prefetch(const uint8_t* row, size_t row_bytes) {
  const uint8_t* const last = row + std::min(row_bytes, kPrefetchBytes) - 1;
  for (const uint8_t* line = row; line < last; line += kCacheLineBytes) __builtin_prefetch(line);
  __builtin_prefetch(last);  // a row that is not aligned ends one line later
}

// Finds `count` rows and starts to fetch them.
template <typename Id>
GatherOutcome Locate(const HeldTable& table, const uint8_t* ids, size_t count, const uint8_t** rows, uint64_t* row) {
  const uint64_t rows_limit = table.rows();
  const size_t row_bytes = table.row_bytes();
  for (size_t i = 0; i < count; ++i) {
    const uint64_t id = LoadLittleEndian<Id>(ids + i * sizeof(Id));
    *row = id;
    if (id >= rows_limit) return GatherOutcome::kNoSuchRow;
    rows[i] = table.Row(id);
    if (rows[i] == nullptr) return GatherOutcome::kNotHeld;
    Prefetch(rows[i], row_bytes);
  }
  return GatherOutcome::kDone;
}

// Walks over the rows of all blocks, a group at a time.
class Locator {
 public:
  Locator(const GatherBlock* blocks, size_t blocks_count) : blocks_(blocks), blocks_count_(blocks_count) {}

  // Fills the next group; an empty one means the end.
  GatherResult Next(Group* group) {
    group->rows_count = 0;
    group->runs_count = 0;
    while (group->rows_count < kGroupRows && block_ < blocks_count_) {
      const GatherBlock& block = blocks_[block_];
      const size_t count = std::min(block.rows_count - position_, kGroupRows - group->rows_count);
      if (count != 0) {
        const uint8_t* ids = block.rows + position_ * block.id_width_bytes;
        const uint8_t** rows = group->rows + group->rows_count;
        uint64_t row = 0;
        const GatherOutcome outcome = block.id_width_bytes == 4 ? Locate<uint32_t>(*block.table, ids, count, rows, &row)
                                                                : Locate<uint64_t>(*block.table, ids, count, rows, &row);
        if (outcome != GatherOutcome::kDone) return {outcome, block_, row};
        group->rows_count += count;
        group->runs[group->runs_count++] = {count, block.table->row_bytes()};
        position_ += count;
      }
      if (position_ == block.rows_count) {
        ++block_;
        position_ = 0;
      }
    }
    return {};
  }

 private:
  const GatherBlock* const blocks_;
  const size_t blocks_count_;
  size_t block_ = 0;
  size_t position_ = 0;  // in the block
};

// A length known to the compiler makes a copy a few moves instead of a call.
template <size_t kRowBytes>
uint8_t* CopyRows(const uint8_t* const* rows, size_t count, uint8_t* to) {
  for (size_t i = 0; i < count; ++i, to += kRowBytes) memcpy(to, rows[i], kRowBytes);
  return to;
}

uint8_t* CopyRun(const uint8_t* const* rows, const Run& run, uint8_t* to) {
  switch (run.row_bytes) {
    case 4:
      return CopyRows<4>(rows, run.rows_count, to);
    case 16:
      return CopyRows<16>(rows, run.rows_count, to);
    case 32:
      return CopyRows<32>(rows, run.rows_count, to);
    case 64:
      return CopyRows<64>(rows, run.rows_count, to);
    case 128:
      return CopyRows<128>(rows, run.rows_count, to);
    case 256:
      return CopyRows<256>(rows, run.rows_count, to);
    default:
      for (size_t i = 0; i < run.rows_count; ++i, to += run.row_bytes) memcpy(to, rows[i], run.row_bytes);
      return to;
  }
}

uint8_t* CopyGroup(const Group& group, uint8_t* to) {
  const uint8_t* const* rows = group.rows;
  for (size_t i = 0; i < group.runs_count; ++i) {
    to = CopyRun(rows, group.runs[i], to);
    rows += group.runs[i].rows_count;
  }
  return to;
}

}  // namespace

GatherResult Gather(const GatherBlock* blocks, size_t blocks_count, uint8_t* to) {
  Locator locator(blocks, blocks_count);
  Group groups[2];
  GatherResult result = locator.Next(&groups[0]);
  for (int current = 0; result.outcome == GatherOutcome::kDone && groups[current].rows_count != 0;
       current = 1 - current) {
    result = locator.Next(&groups[1 - current]);
    to = CopyGroup(groups[current], to);
  }
  return result;
}

}  // namespace tessera
