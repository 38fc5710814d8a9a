#include "cpp_ext/table/gather.h"

#include <algorithm>
#include <cstring>

#include "cpp_ext/base/hash.h"

namespace tessera {
namespace {

constexpr size_t kCacheLineBytes = 64;
// Rows between the one whose cache lines are asked for and the one that is copied: somewhat more than a core can have
// misses outstanding, and little enough to stay in its nearest cache.
constexpr size_t kAhead = 16;
// Rows whose addresses are computed at once. Computing each address just before it is prefetched was slower: it leaves
// room for fewer misses in the instructions that a core looks at together.
constexpr size_t kStep = 64;
// The first lines of a row are asked for; what follows is a long run that the hardware fetches ahead by itself.
constexpr size_t kPrefetchBytes = 512;

inline __attribute__((always_inline)) void Prefetch(const uint8_t* row, size_t row_bytes) {
  const size_t bytes = std::min(row_bytes, kPrefetchBytes);
#pragma GCC unroll 8
  for (size_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(row + at);
  // Only rows of whole lines are aligned to lines; others may end in one line more.
  if (row_bytes % kCacheLineBytes != 0) __builtin_prefetch(row + bytes - 1);
}

// The bytes of the row at a position: one number known to the compiler, which makes a copy a few moves instead of a
// call, or different ones.
template <size_t kBytes>
struct OneLength {
  size_t operator[](size_t) const { return kBytes; }
};
using AnyLength = const size_t*;

template <typename Id>
GatherOutcome Locate(const HeldTable& table, const uint8_t* ids, size_t count, const uint8_t** rows,
                     uint64_t* failed_row) {
  const uint64_t limit = table.rows();
  for (size_t i = 0; i < count; ++i) {
    const uint64_t id = LoadLittleEndian<Id>(ids + i * sizeof(Id));
    const uint8_t* row = id < limit ? table.Row(id) : nullptr;
    if (row == nullptr) {
      *failed_row = id;
      return id < limit ? GatherOutcome::kNotHeld : GatherOutcome::kNoSuchRow;
    }
    rows[i] = row;
  }
  return GatherOutcome::kDone;
}

// Rows in the order of the request, in three stages: located, then prefetched, then copied and forgotten.
class Gatherer {
 public:
  explicit Gatherer(uint8_t* to) : to_(to) {}

  GatherOutcome Add(const GatherBlock& block, uint64_t* failed_row) {
    const HeldTable& table = *block.table;
    const size_t row_bytes = table.row_bytes();
    for (size_t at = 0; at < block.rows_count;) {
      const size_t count = std::min(block.rows_count - at, prefetched_ + kStep - located_);
      const uint8_t* ids = block.rows + at * block.id_width_bytes;
      const GatherOutcome outcome = block.id_width_bytes == 4
                                        ? Locate<uint32_t>(table, ids, count, rows_ + located_, failed_row)
                                        : Locate<uint64_t>(table, ids, count, rows_ + located_, failed_row);
      if (outcome != GatherOutcome::kDone) return outcome;
      if (located_ == 0 || lengths_[located_ - 1] != row_bytes) equal_from_ = located_;
      std::fill_n(lengths_ + located_, count, row_bytes);
      located_ += count;
      at += count;
      if (located_ == prefetched_ + kStep) Step();
    }
    return GatherOutcome::kDone;
  }

  void Finish() {
    Step();
    for (size_t i = 0; i < prefetched_; ++i) {
      memcpy(to_, rows_[i], lengths_[i]);
      to_ += lengths_[i];
    }
  }

 private:
  // Prefetches all that is located, and copies all but the last kAhead rows.
  void Step() {
    const bool equal = equal_from_ == 0 && located_ != 0;
    switch (equal ? lengths_[0] : 0) {
      case 32:
        return Move(OneLength<32>());
      case 64:
        return Move(OneLength<64>());
      case 128:
        return Move(OneLength<128>());
      case 256:
        return Move(OneLength<256>());
      default:
        return Move(AnyLength{lengths_});
    }
  }

  template <typename Lengths>
  void Move(Lengths lengths) {
    for (; prefetched_ < std::min(located_, kAhead); ++prefetched_) Prefetch(rows_[prefetched_], lengths[prefetched_]);
    const size_t copied = located_ - prefetched_;
    uint8_t* to = to_;  // in a register: the compiler cannot know that the copies do not change to_
    for (size_t i = 0; i < copied; ++i) {
      Prefetch(rows_[i + kAhead], lengths[i + kAhead]);
      memcpy(to, rows_[i], lengths[i]);
      to += lengths[i];
    }
    to_ = to;
    std::copy(rows_ + copied, rows_ + located_, rows_);
    std::copy(lengths_ + copied, lengths_ + located_, lengths_);
    located_ -= copied;
    equal_from_ -= std::min(equal_from_, copied);
  }

  uint8_t* to_;
  const uint8_t* rows_[kAhead + kStep];
  size_t lengths_[kAhead + kStep];
  size_t located_ = 0;     // rows here; copied ones are removed
  size_t prefetched_ = 0;  // the first so many; at most kAhead after a step
  size_t equal_from_ = 0;  // rows from this position on have the same length
};

}  // namespace

GatherResult Gather(const GatherBlock* blocks, size_t blocks_count, uint8_t* to) {
  Gatherer gatherer(to);
  for (size_t i = 0; i < blocks_count; ++i) {
    uint64_t failed_row = 0;
    const GatherOutcome outcome = gatherer.Add(blocks[i], &failed_row);
    if (outcome != GatherOutcome::kDone) return {outcome, i, failed_row};
  }
  gatherer.Finish();
  return {};
}

}  // namespace tessera
