// Tables in temporary files whose bytes tell which row they are.
#ifndef TESSERA_TESTS_CPP_TABLE_FIXTURE_H_
#define TESSERA_TESTS_CPP_TABLE_FIXTURE_H_

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/hash.h"
#include "cpp_ext/table/held_table.h"
#include "cpp_ext/table/lookup_message.h"
#include "cpp_ext/table/table_store.h"

namespace tessera {

// A directory that is gone, with all that is in it, when the test ends.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "tessera_test_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) abort();
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  // Writes a file and returns its path.
  std::string Write(const std::string& bytes) {
    const std::string path = path_ + "/" + std::to_string(files_++);
    FILE* file = fopen(path.c_str(), "wb");
    if (file == nullptr || fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() || fclose(file) != 0) abort();
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int files_ = 0;
};

// The bytes of a row of the table with this seed: as good as random, hence different from all others.
inline std::string RowBytes(uint64_t seed, uint64_t row, size_t row_bytes) {
  std::string bytes;
  for (uint64_t i = 0; bytes.size() < row_bytes; ++i) {
    const uint64_t word = XxHash64(&i, sizeof(i), seed * 1'000'003 + row);
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(row_bytes);
  return bytes;
}

inline bool AllBuckets(uint64_t) { return true; }

inline std::shared_ptr<const HeldTable> MakeTable(TemporaryDirectory* directory, uint64_t seed, int64_t rows,
                                                  int64_t row_bytes, uint64_t buckets,
                                                  const std::function<bool(uint64_t)>& held = AllBuckets) {
  std::map<uint64_t, std::shared_ptr<const Blob>> blobs;
  for (uint64_t bucket = 0; bucket < buckets; ++bucket) {
    if (!held(bucket)) continue;
    std::string bytes;
    for (uint64_t row = bucket; row < static_cast<uint64_t>(rows); row += buckets) {
      bytes += RowBytes(seed, row, static_cast<size_t>(row_bytes));
    }
    const Status status = Blob::Map(directory->Write(bytes), bytes.size(), false, &blobs[bucket]);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  std::shared_ptr<const HeldTable> table;
  const Status status = HeldTable::Make("table" + std::to_string(seed), rows, row_bytes, buckets, blobs, &table);
  EXPECT_TRUE(status.ok()) << status.message();
  return table;
}

// Rows to ask for, of either width.
struct Ids {
  uint32_t table;
  uint32_t id_width_bytes;
  std::vector<uint64_t> rows;
};

inline std::string MakeRequest(const LookupHeader& header, const std::vector<Ids>& asked) {
  LookupRequestWriter writer(header, asked.size(), 0);
  for (const Ids& ids : asked) {
    uint8_t* to = writer.AddBlock(ids.table, ids.id_width_bytes, ids.rows.size());
    for (size_t i = 0; i < ids.rows.size(); ++i) memcpy(to + i * ids.id_width_bytes, &ids.rows[i], ids.id_width_bytes);
  }
  return writer.Finish();
}

// A response and the memory that its views point into.
struct Response {
  Status status;
  std::string bytes;
  LookupResponseView view;

  std::string rows() const { return std::string(reinterpret_cast<const char*>(view.rows), view.rows_bytes); }
};

inline std::unique_ptr<Response> Lookup(TableStore* store, const std::string& request,
                                        size_t max_response_bytes = 1 << 20) {
  auto response = std::make_unique<Response>();
  uint8_t* bytes = nullptr;
  size_t size_bytes = 0;
  // A copy of exactly this size, so that AddressSanitizer sees a read past the end.
  const std::vector<uint8_t> exact(request.begin(), request.end());
  response->status = store->Lookup(exact.data(), exact.size(), max_response_bytes, &bytes, &size_bytes);
  if (!response->status.ok()) {
    EXPECT_EQ(bytes, nullptr);
    return response;
  }
  response->bytes.assign(reinterpret_cast<const char*>(bytes), size_bytes);
  free(bytes);
  const Status parsed = ParseLookupResponse(reinterpret_cast<const uint8_t*>(response->bytes.data()),
                                            response->bytes.size(), &response->view);
  EXPECT_TRUE(parsed.ok()) << parsed.message();
  return response;
}

}  // namespace tessera

#endif  // TESSERA_TESTS_CPP_TABLE_FIXTURE_H_
