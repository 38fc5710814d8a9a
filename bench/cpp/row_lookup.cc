// Rows per second of TableStore::Lookup beside the bound of the machine: a plain loop that prefetches and copies the
// same rows, whose addresses it is given, from the same mapped files. One thread; pages in memory.
//
// Usage: row_lookup [--mode=cold|warm] [--row_bytes=128] [--table_mib=2048] [--rows_per_lookup=1024] [--buckets=63]
//                   [--seconds=6] [--directory=DIR]
// cold: random rows of the whole table, so that hardly any is in the processor's caches; warm: of its first 4 MiB.
// Prints one JSON object. The two take turns, a few milliseconds each; medians over the turns.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/base/hash.h"
#include "cpp_ext/table/held_table.h"
#include "cpp_ext/table/lookup_message.h"
#include "cpp_ext/table/table_store.h"

namespace tessera {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Options {
  std::string mode = "cold";
  std::string directory = "/tmp";
  uint64_t row_bytes = 128;
  uint64_t table_mib = 2048;
  uint64_t rows_per_lookup = 1024;
  uint64_t buckets = 63;
  uint64_t seconds = 6;
};

[[noreturn]] void Fail(const std::string& message) {
  fprintf(stderr, "row_lookup: %s\n", message.c_str());
  exit(1);
}

void Check(const Status& status) {
  if (!status.ok()) Fail(status.message());
}

Options ParseOptions(int count, char** values) {
  Options options;
  const std::map<std::string, std::string*> texts = {{"mode", &options.mode}, {"directory", &options.directory}};
  const std::map<std::string, uint64_t*> numbers = {{"row_bytes", &options.row_bytes},
                                                    {"table_mib", &options.table_mib},
                                                    {"rows_per_lookup", &options.rows_per_lookup},
                                                    {"buckets", &options.buckets},
                                                    {"seconds", &options.seconds}};
  for (int i = 1; i < count; ++i) {
    const std::string argument = values[i];
    const size_t equals = argument.find('=');
    if (argument.rfind("--", 0) != 0 || equals == std::string::npos)
      Fail("got " + argument + ", expected --name=value");
    const std::string name = argument.substr(2, equals - 2);
    const std::string value = argument.substr(equals + 1);
    if (texts.count(name) != 0) {
      *texts.at(name) = value;
    } else if (numbers.count(name) != 0) {
      char* end = nullptr;
      *numbers.at(name) = strtoull(value.c_str(), &end, 10);
      if (value.empty() || *end != '\0' || *numbers.at(name) == 0)
        Fail(name + ": got " + value + ", expected a number");
    } else {
      Fail("unknown option " + argument);
    }
  }
  if (options.mode != "cold" && options.mode != "warm") Fail("mode: got " + options.mode + ", expected cold or warm");
  return options;
}

// The blobs of a table whose row r starts with r, as 8 bytes; the files are gone when the mappings are.
std::map<uint64_t, std::shared_ptr<const Blob>> MakeBlobs(const Options& options, int64_t rows) {
  std::string directory = options.directory + "/row_lookup_XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) Fail("directory: cannot make " + directory);
  std::map<uint64_t, std::shared_ptr<const Blob>> blobs;
  std::string bytes;
  for (uint64_t bucket = 0; bucket < options.buckets; ++bucket) {
    const uint64_t bucket_rows = RowsOfBucket(rows, options.buckets, bucket);
    bytes.assign(bucket_rows * options.row_bytes, '\x5a');
    for (uint64_t local = 0; local < bucket_rows; ++local) {
      const uint64_t row = local * options.buckets + bucket;
      memcpy(&bytes[local * options.row_bytes], &row, std::min<size_t>(sizeof(row), options.row_bytes));
    }
    const std::string path = directory + "/" + std::to_string(bucket);
    FILE* file = fopen(path.c_str(), "wb");
    const bool written = file != nullptr && fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    if (file != nullptr && fclose(file) == 0 && written) {
      Check(Blob::Map(path, bytes.size(), /*populate=*/true, &blobs[bucket]));
      unlink(path.c_str());
      continue;
    }
    unlink(path.c_str());
    rmdir(directory.c_str());
    Fail("cannot write " + path);
  }
  rmdir(directory.c_str());
  return blobs;
}

// The bound. Of the distances 8, 16, 32 and 64, this one was best for rows of 64 to 512 bytes.
template <size_t kRowBytes>
void CopyRows(const uint8_t* const* rows, size_t count, uint8_t* to) {
  constexpr size_t kAhead = 16;
  const auto prefetch = [](const uint8_t* row) {
    for (size_t at = 0; at < kRowBytes; at += 64) __builtin_prefetch(row + at);
  };
  for (size_t i = 0; i < std::min(kAhead, count); ++i) prefetch(rows[i]);
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) prefetch(rows[i + kAhead]);
    memcpy(to + i * kRowBytes, rows[i], kRowBytes);
  }
}

using Bound = void (*)(const uint8_t* const* rows, size_t count, uint8_t* to);

Bound BoundOf(uint64_t row_bytes) {
  switch (row_bytes) {
    case 64:
      return &CopyRows<64>;
    case 128:
      return &CopyRows<128>;
    case 256:
      return &CopyRows<256>;
    case 512:
      return &CopyRows<512>;
    default:
      Fail("row_bytes: got " + std::to_string(row_bytes) + ", expected 64, 128, 256 or 512");
  }
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// One lookup, ready to be made both ways.
struct Case {
  std::string request;
  std::vector<const uint8_t*> rows;
};

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const Bound bound = BoundOf(options.row_bytes);
  const int64_t rows = static_cast<int64_t>(options.table_mib * kMiB / options.row_bytes);
  std::shared_ptr<const HeldTable> table;
  Check(HeldTable::Make("table", rows, static_cast<int64_t>(options.row_bytes), options.buckets,
                        MakeBlobs(options, rows), &table));
  TableStore store;
  const std::string digest(kPackageDigestBytes, 'd');
  Check(store.Publish(digest, "model", 1, {table}));

  const LookupHeader header{digest, "model", 1, 1};
  const uint64_t range = options.mode == "cold" ? rows : std::min<uint64_t>(rows, 4 * kMiB / options.row_bytes);
  constexpr size_t kLookupsPerTurn = 64;
  const size_t response_bytes = options.rows_per_lookup * options.row_bytes + 64;
  std::vector<Case> cases(kLookupsPerTurn);
  std::vector<uint8_t> buffer(response_bytes);
  std::vector<double> store_rows_per_s, bound_rows_per_s;
  uint64_t random = 1;
  const int64_t end_ns = MonotonicNs() + static_cast<int64_t>(options.seconds) * 1'000'000'000;
  for (int turn = 0; MonotonicNs() < end_ns; ++turn) {
    for (const bool of_store : {turn % 2 == 0, turn % 2 != 0}) {
      // Fresh rows for each, so that neither finds in the caches what the other has just touched. Making them also
      // brings the rows' addresses and the requests into the caches, for both.
      for (Case& lookup : cases) {
        std::vector<uint32_t> ids(options.rows_per_lookup);
        lookup.rows.resize(ids.size());
        for (size_t i = 0; i < ids.size(); ++i) {
          random += 0x9E3779B97F4A7C15u;
          ids[i] = static_cast<uint32_t>(MixBits(random) % range);
          lookup.rows[i] = table->Row(ids[i]);
        }
        const LookupBlock block{0, 4, reinterpret_cast<const uint8_t*>(ids.data()), ids.size()};
        lookup.request = BuildLookupRequest(header, &block, 1);
      }
      const int64_t start_ns = MonotonicNs();
      for (const Case& lookup : cases) {
        if (!of_store) {
          bound(lookup.rows.data(), lookup.rows.size(), buffer.data());
          __asm__ volatile("" : : "r"(buffer.data()) : "memory");  // the copies count as used
          continue;
        }
        uint8_t* response = nullptr;
        size_t size_bytes = 0;
        Check(store.Lookup(reinterpret_cast<const uint8_t*>(lookup.request.data()), lookup.request.size(),
                           response_bytes, &response, &size_bytes));
        LookupResponseView view;
        Check(ParseLookupResponse(response, size_bytes, &view));
        if (view.refused || view.rows_bytes != lookup.rows.size() * options.row_bytes) Fail("wrong response");
        free(response);
      }
      const double seconds = static_cast<double>(MonotonicNs() - start_ns) * 1e-9;
      const double per_s = static_cast<double>(kLookupsPerTurn * options.rows_per_lookup) / seconds;
      (of_store ? store_rows_per_s : bound_rows_per_s).push_back(per_s);
    }
  }
  const double store_median = Median(store_rows_per_s), bound_median = Median(bound_rows_per_s);
  printf(
      "{\"rows_per_s\": %.0f, \"bound_rows_per_s\": %.0f, \"ratio\": %.4f, \"mode\": \"%s\", \"row_bytes\": %llu, "
      "\"table_bytes\": %llu, \"rows_per_lookup\": %llu, \"buckets\": %llu, \"turns\": %zu}\n",
      store_median, bound_median, store_median / bound_median, options.mode.c_str(),
      static_cast<unsigned long long>(options.row_bytes), static_cast<unsigned long long>(options.table_mib * kMiB),
      static_cast<unsigned long long>(options.rows_per_lookup), static_cast<unsigned long long>(options.buckets),
      store_rows_per_s.size());
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
