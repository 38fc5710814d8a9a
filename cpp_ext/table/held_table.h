// The buckets of one table that this process holds, and where their rows are in memory.
//
// Thread-safety: immutable after Make.
#ifndef TESSERA_CPP_EXT_TABLE_HELD_TABLE_H_
#define TESSERA_CPP_EXT_TABLE_HELD_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/fast_div.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/table/blob.h"

namespace tessera {

// Limits of one table; far above what is useful, so that damaged numbers are noticed before memory is taken for them.
constexpr uint64_t kMaxBuckets = uint64_t{1} << 24;
constexpr int64_t kMaxRowBytes = int64_t{1} << 30;

// Rows of a table that fall into `bucket`: all r in [0, rows) with r % buckets == bucket.
// REQUIRES: rows >= 0, buckets >= 1.
inline uint64_t RowsOfBucket(int64_t rows, uint64_t buckets, uint64_t bucket) {
  const uint64_t all = static_cast<uint64_t>(rows);
  return bucket < all ? (all - bucket - 1) / buckets + 1 : 0;
}

class HeldTable {
 public:
  // `blobs`: bucket -> its bytes, any subset of the buckets. Takes 8 bytes of memory per bucket of the table.
  // INVALID_ARGUMENT: a number is out of range, or a bucket is not below `buckets`; names it.
  // DATA_LOSS: a blob has another size than its bucket; names table and bucket.
  static Status Make(std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets,
                     std::map<uint64_t, std::shared_ptr<const Blob>> blobs, std::shared_ptr<const HeldTable>* table);

  const std::string& name() const { return name_; }
  uint64_t rows() const { return rows_; }
  size_t row_bytes() const { return row_bytes_; }
  uint64_t buckets() const { return divisor_.divisor(); }
  bool Holds(uint64_t bucket) const { return bucket < base_.size() && base_[bucket] != nullptr; }

  // The row's bytes, or null when its bucket is not held. REQUIRES: row < rows().
  const uint8_t* Row(uint64_t row) const {
    const uint64_t local_row = divisor_.Quotient(row);
    const uint8_t* base = base_[divisor_.Remainder(row, local_row)];
    return base == nullptr ? nullptr : base + local_row * row_bytes_;
  }

 private:
  HeldTable(std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets,
            std::map<uint64_t, std::shared_ptr<const Blob>> blobs);

  const std::string name_;
  const uint64_t rows_;
  const size_t row_bytes_;
  const FastDivisor divisor_;
  const std::map<uint64_t, std::shared_ptr<const Blob>> blobs_;  // keeps the mappings
  std::vector<const uint8_t*> base_;                             // by bucket; null: not held
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_HELD_TABLE_H_
