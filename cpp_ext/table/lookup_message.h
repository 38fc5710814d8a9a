// The messages of /tessera.data.v1.TableService/Lookup, as docs/formats/wire.md and protos/data_plane.proto describe
// them.
//
// Views point into the message that they were read from. Nothing here throws, and nothing that a message claims is
// allocated before it was compared with the bytes that are there.
// Thread-safety: plain values.
#ifndef TESSERA_CPP_EXT_TABLE_LOOKUP_MESSAGE_H_
#define TESSERA_CPP_EXT_TABLE_LOOKUP_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

constexpr char kLookupMethod[] = "/tessera.data.v1.TableService/Lookup";
constexpr size_t kPackageDigestBytes = 32;
// More blocks than this in one request are refused: it bounds what a server remembers per request.
constexpr size_t kMaxLookupBlocks = 65536;

// --- Request ------------------------------------------------------------------------------------------------

// What is asked, and under which placement.
struct LookupHeader {
  std::string_view package_digest;  // kPackageDigestBytes bytes
  std::string_view model;
  int64_t version = 0;
  uint64_t epoch = 0;
};

// Some rows of one table. `rows` are unsigned little-endian global row ids, not necessarily aligned.
struct LookupBlock {
  uint32_t table = 0;           // position in the package's manifest
  uint32_t id_width_bytes = 4;  // 4 or 8
  const uint8_t* rows = nullptr;
  size_t rows_count = 0;
};

// Builds a request in one allocation.
class LookupRequestWriter {
 public:
  // At most `blocks` blocks with together `ids_bytes` bytes of ids will be added; more still works, but allocates
  // again.
  LookupRequestWriter(const LookupHeader& header, size_t blocks, size_t ids_bytes);

  // Appends a block and returns where its rows_count × id_width_bytes bytes of ids go (unaligned; valid until the next
  // call). REQUIRES: id_width_bytes is 4 or 8; a caller adds at most kMaxLookupBlocks blocks.
  uint8_t* AddBlock(uint32_t table, uint32_t id_width_bytes, size_t rows_count);

  // Returns the message; the writer is used up.
  std::string Finish() { return std::move(message_); }

 private:
  std::string message_;
};

std::string BuildLookupRequest(const LookupHeader& header, const LookupBlock* blocks, size_t blocks_count);

// Reads a request; `blocks` is overwritten. INVALID_ARGUMENT: malformed; names the field.
Status ParseLookupRequest(const uint8_t* data, size_t size_bytes, LookupHeader* header,
                          std::vector<LookupBlock>* blocks);

// --- Response -----------------------------------------------------------------------------------------------

// Why a server does not answer. Numbers are part of the wire format.
enum class RefusalKind : uint32_t {
  kUnspecified = 0,  // also every number that this build does not know: ask another replica
  kNotOwner = 1,     // holds no such package or bucket; `epoch` and `placement` say what it knows
  kDraining = 2,     // is going away: ask another replica
  kOverloaded = 3,   // has no memory or time for it now: ask another replica
  kBadRequest = 4,   // wrong whoever is asked
};

// "NOT_OWNER" and so on.
const char* RefusalKindName(RefusalKind kind);

struct Refusal {
  RefusalKind kind = RefusalKind::kUnspecified;
  std::string_view message;
  // The newest epoch of the request's model that the server knows; 0: none.
  uint64_t epoch = 0;
  // The placement document of `epoch`, only when that is newer than the request's epoch.
  std::string_view placement;
};

// Either rows or a refusal.
struct LookupResponseView {
  bool refused = false;
  // All rows asked for, in the order of the request, without anything between them.
  const uint8_t* rows = nullptr;
  size_t rows_bytes = 0;
  Refusal refusal;
};

// Reads a response without copying. INTERNAL: malformed, or neither rows nor refusal.
Status ParseLookupResponse(const uint8_t* data, size_t size_bytes, LookupResponseView* view);

// Bytes of the message before the rows of a response that carries `rows_bytes`, and writes them.
size_t RowsHeaderBytes(size_t rows_bytes);
uint8_t* WriteRowsHeader(size_t rows_bytes, uint8_t* to);

std::string BuildRefusal(const Refusal& refusal);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_LOOKUP_MESSAGE_H_
