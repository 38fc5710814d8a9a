#include "cpp_ext/table/gather.h"

#include <algorithm>
#include <cstring>

#include "cpp_ext/base/hash.h"

namespace tessera {
namespace {

constexpr size_t kCacheLineBytes = 64;
// Rows under way between the request for their cache lines and their copy: somewhat more than a core can have misses
// outstanding (measured: 16 to 32 are best), and little enough to stay in its nearest cache.
constexpr size_t kAhead = 32;
// The first lines of a row are asked for; what follows is a long run that the hardware fetches ahead by itself.
constexpr size_t kPrefetchBytes = 512;

// The bytes of a row, known to the compiler, so that a copy is a few moves instead of a call, or not.
template <size_t kBytes>
struct FixedLength {
  size_t bytes() const { return kBytes; }
};
struct AnyLength {
  size_t bytes() const { return value; }
  size_t value;
};

template <typename Length>
inline void Prefetch(const uint8_t* row, Length length) {
  const size_t bytes = std::min(length.bytes(), kPrefetchBytes);
#pragma GCC unroll 8
  for (size_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(row + at);
  // Only rows of whole lines are aligned to lines; others may end in one line more.
  if (length.bytes() % kCacheLineBytes != 0) __builtin_prefetch(row + bytes - 1);
}

class Gatherer {
 public:
  explicit Gatherer(uint8_t* to) : to_(to) {}

  // Takes the rows of a block up, and copies those before them that are due.
  GatherOutcome Add(const GatherBlock& block, uint64_t* failed_row) {
    return block.id_width_bytes == 4 ? AddIds<uint32_t>(block, failed_row) : AddIds<uint64_t>(block, failed_row);
  }

  // Copies what is still under way.
  void Finish() {
    for (size_t i = 0; i < kAhead; ++i) CopyOldest();
  }

 private:
  struct Row {
    const uint8_t* from = nullptr;  // null: nothing is due here
    size_t bytes = 0;
  };

  template <typename Id>
  GatherOutcome AddIds(const GatherBlock& block, uint64_t* failed_row) {
    const size_t row_bytes = block.table->row_bytes();
    switch (row_bytes) {
      case 32:
        return AddRows<Id>(block, FixedLength<32>(), failed_row);
      case 64:
        return AddRows<Id>(block, FixedLength<64>(), failed_row);
      case 128:
        return AddRows<Id>(block, FixedLength<128>(), failed_row);
      case 256:
        return AddRows<Id>(block, FixedLength<256>(), failed_row);
      default:
        return AddRows<Id>(block, AnyLength{row_bytes}, failed_row);
    }
  }

  template <typename Id, typename Length>
  GatherOutcome AddRows(const GatherBlock& block, Length length, uint64_t* failed_row) {
    const HeldTable& table = *block.table;
    const uint64_t rows = table.rows();
    const size_t mixed = std::min(block.rows_count, kAhead);
    size_t i = 0;
    // The ring still holds rows of earlier blocks, of other lengths.
    for (; i < mixed; ++i) {
      CopyOldest();
      *failed_row = LoadLittleEndian<Id>(block.rows + i * sizeof(Id));
      if (*failed_row >= rows) return GatherOutcome::kNoSuchRow;
      const uint8_t* from = table.Row(*failed_row);
      if (from == nullptr) return GatherOutcome::kNotHeld;
      Prefetch(from, length);
      ring_[(oldest_ + kAhead - 1) % kAhead] = {from, length.bytes()};
    }
    // From here on it holds rows of this block only. The state is in locals, as `to` might point to members.
    uint8_t* to = to_;
    size_t oldest = oldest_;
    for (; i < block.rows_count; ++i) {
      const uint64_t row = LoadLittleEndian<Id>(block.rows + i * sizeof(Id));
      const uint8_t* from = row < rows ? table.Row(row) : nullptr;
      if (from == nullptr) {
        *failed_row = row;
        return row < rows ? GatherOutcome::kNotHeld : GatherOutcome::kNoSuchRow;
      }
      Prefetch(from, length);
      memcpy(to, ring_[oldest].from, length.bytes());
      to += length.bytes();
      ring_[oldest] = {from, length.bytes()};
      oldest = (oldest + 1) % kAhead;
    }
    to_ = to;
    oldest_ = oldest;
    return GatherOutcome::kDone;
  }

  void CopyOldest() {
    Row& row = ring_[oldest_];
    oldest_ = (oldest_ + 1) % kAhead;
    if (row.from == nullptr) return;
    memcpy(to_, row.from, row.bytes);
    to_ += row.bytes;
    row.from = nullptr;
  }

  uint8_t* to_;
  Row ring_[kAhead];  // in the order of the request, from oldest_ on
  size_t oldest_ = 0;
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
