// How much fits into one Lookup RPC.
//
// Thread-safety: plain values.
#ifndef TESSERA_CPP_EXT_RPC_LOOKUP_SIZE_H_
#define TESSERA_CPP_EXT_RPC_LOOKUP_SIZE_H_

#include <algorithm>
#include <cstddef>

#include "cpp_ext/rpc/route.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {

// What rows take in a request and in its answer.
struct LookupSize {
  size_t blocks = 0;
  size_t ids_bytes = 0;   // in the request
  size_t rows_bytes = 0;  // in the answer

  void AddRow(const TesseraRoute::Table& table, bool new_block) {
    blocks += new_block ? 1 : 0;
    ids_bytes += table.wide_ids ? 8 : 4;
    rows_bytes += static_cast<size_t>(table.row_bytes);
  }
  void Add(const LookupSize& other) {
    blocks += other.blocks;
    ids_bytes += other.ids_bytes;
    rows_bytes += other.rows_bytes;
  }
};

// The largest RPC of a route: neither message may exceed `max_message_bytes`.
class LookupLimits {
 public:
  LookupLimits(size_t model_bytes, size_t max_message_bytes)
      : max_request_bytes_(max_message_bytes - std::min(max_message_bytes, model_bytes + kHeaderBytes)),
        max_rows_bytes_(max_message_bytes - std::min(max_message_bytes, kFieldBytes)) {}

  bool Allow(const LookupSize& size) const {
    return size.blocks <= kMaxLookupBlocks && size.rows_bytes <= max_rows_bytes_ &&
           size.ids_bytes + size.blocks * kBlockBytes <= max_request_bytes_;
  }
  // Of the rows of one answer.
  size_t max_rows_bytes() const { return max_rows_bytes_; }

 private:
  // Tag and length, or tag and varint, of a field take at most so many bytes.
  static constexpr size_t kFieldBytes = 11;
  static constexpr size_t kHeaderBytes = kPackageDigestBytes + 4 * kFieldBytes;
  // A block's own field, its table and its ids, whose lengths are below 2^31.
  static constexpr size_t kBlockBytes = 3 * 6;

  size_t max_request_bytes_;
  size_t max_rows_bytes_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_SIZE_H_
