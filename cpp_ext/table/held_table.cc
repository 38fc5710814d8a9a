#include "cpp_ext/table/held_table.h"

#include <utility>

namespace tessera {
namespace {

// Where a held bucket without any rows begins; it only must not be null.
const uint8_t kNoRows = 0;

std::string OutOfRange(const std::string& name, const char* field, const std::string& got,
                       const std::string& expected) {
  return "table " + name + ": " + field + ": got " + got + ", expected " + expected;
}

}  // namespace

HeldTable::HeldTable(std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets,
                     std::map<uint64_t, std::shared_ptr<const Blob>> blobs)
    : name_(std::move(name)),
      rows_(static_cast<uint64_t>(rows)),
      row_bytes_(static_cast<size_t>(row_bytes)),
      divisor_(buckets),
      blobs_(std::move(blobs)),
      base_(buckets, nullptr) {
  for (const auto& [bucket, blob] : blobs_) base_[bucket] = blob->size_bytes() == 0 ? &kNoRows : blob->data();
}

Status HeldTable::Make(std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets,
                       std::map<uint64_t, std::shared_ptr<const Blob>> blobs, std::shared_ptr<const HeldTable>* table) {
  if (rows < 0) {
    return Status(Code::kInvalidArgument, OutOfRange(name, "rows", std::to_string(rows), "0 or more"));
  }
  if (row_bytes < 1 || row_bytes > kMaxRowBytes) {
    return Status(Code::kInvalidArgument,
                  OutOfRange(name, "row_bytes", std::to_string(row_bytes), "1 to " + std::to_string(kMaxRowBytes)));
  }
  int64_t table_bytes;
  if (__builtin_mul_overflow(rows, row_bytes, &table_bytes)) {
    return Status(Code::kInvalidArgument, OutOfRange(name, "rows", std::to_string(rows),
                                                     "at most " + std::to_string(INT64_MAX / row_bytes) +
                                                         ", as rows have " + std::to_string(row_bytes) + " bytes"));
  }
  if (buckets < 1 || buckets > kMaxBuckets) {
    return Status(Code::kInvalidArgument,
                  OutOfRange(name, "buckets", std::to_string(buckets), "1 to " + std::to_string(kMaxBuckets)));
  }
  for (const auto& [bucket, blob] : blobs) {
    const std::string field = "blobs[" + std::to_string(bucket) + "]";
    if (bucket >= buckets) {
      return Status(Code::kInvalidArgument,
                    OutOfRange(name, field.c_str(), "a bucket of that number", "less than " + std::to_string(buckets)));
    }
    if (blob == nullptr) return Status(Code::kInvalidArgument, OutOfRange(name, field.c_str(), "nothing", "a blob"));
    const uint64_t expected_bytes = RowsOfBucket(rows, buckets, bucket) * static_cast<uint64_t>(row_bytes);
    if (blob->size_bytes() != expected_bytes) {
      return Status(Code::kDataLoss, "table " + name + ": bucket " + std::to_string(bucket) + ": blob " + blob->path() +
                                         " has " + std::to_string(blob->size_bytes()) + " bytes, expected " +
                                         std::to_string(expected_bytes));
    }
  }
  table->reset(new HeldTable(std::move(name), rows, row_bytes, buckets, std::move(blobs)));
  return Status();
}

}  // namespace tessera
