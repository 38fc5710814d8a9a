// The tables that this process can be asked for, by package, and the answers to lookups in them.
//
// Knows neither gRPC nor TensorFlow. Everything that a lookup reads is one immutable snapshot, replaced as a whole.
// Thread-safety: all methods may be called from any thread. Lookup never waits for the others; they wait for each
// other, and until no lookup reads what they replaced, so that memory is unmapped when they return (if nothing else
// holds it) and not at some later time.
#ifndef TESSERA_CPP_EXT_TABLE_TABLE_STORE_H_
#define TESSERA_CPP_EXT_TABLE_TABLE_STORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/read_mostly.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/table/held_table.h"

namespace tessera {

enum class RefusalKind : uint32_t;
struct TableSnapshot;

// Counters since start. Every request counts once in `requests`, whatever becomes of it.
struct TableStoreStats {
  uint64_t requests = 0;
  uint64_t rows = 0;   // answered
  uint64_t bytes = 0;  // of these rows
  uint64_t refused_not_owner = 0;
  uint64_t refused_draining = 0;
  uint64_t refused_bad_request = 0;
  uint64_t refused_overloaded = 0;
  uint64_t refused_too_large = 0;  // more rows than a response may carry
};

class TableStore {
 public:
  TableStore();
  ~TableStore();
  TableStore(const TableStore&) = delete;
  TableStore& operator=(const TableStore&) = delete;

  // Serves a package's tables, in the order of its manifest, from the next lookup on, instead of what was published
  // under the same digest. INVALID_ARGUMENT: the digest has not 32 bytes, the model is empty, or a table is null.
  Status Publish(std::string package_digest, std::string model, int64_t version,
                 std::vector<std::shared_ptr<const HeldTable>> tables);

  // Stops serving a package; returns whether it was there.
  bool Retire(const std::string& package_digest);

  // Keeps the newest placement of a model, to be sent along with NOT_OWNER. An older epoch than the one kept is
  // ignored.
  void SetPlacement(std::string model, uint64_t epoch, std::string document);

  // Refuses lookups with DRAINING from now on, or accepts them again.
  void SetDraining(bool draining);

  TableStoreStats Stats() const;

  // Answers one serialized LookupRequest. OK: `*response` is a serialized LookupResponse, rows or refusal, that the
  // caller frees with free(); whatever is wrong with the request is a refusal. RESOURCE_EXHAUSTED: the rows asked for
  // make a response of more than `max_response_bytes`, or there is no memory even for a refusal; nothing is to be
  // freed.
  //
  // Costs one allocation and, with cold rows, the time to fetch their cache lines, many at a time. The only thing that
  // it ever waits for is the disk, when rows are on pages that are not in memory.
  Status Lookup(const uint8_t* request, size_t request_bytes, size_t max_response_bytes, uint8_t** response,
                size_t* response_bytes);

 private:
  enum Counter : int {
    kRequests,
    kRows,
    kBytes,
    kRefusedNotOwner,
    kRefusedDraining,
    kRefusedBadRequest,
    kRefusedOverloaded,
    kRefusedTooLarge,
    kCounters,
  };
  // Counted by a few threads each; a cell is one cache line.
  struct alignas(64) CounterCell {
    std::atomic<uint64_t> values[kCounters] = {};
  };
  static constexpr uint32_t kCounterCells = 32;

  void Count(Counter counter, uint64_t amount);
  static Counter RefusalCounter(RefusalKind kind);

  ReadMostly<TableSnapshot> snapshot_;
  CounterCell counters_[kCounterCells];
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_TABLE_STORE_H_
