#include "cpp_ext/table/lookup_message.h"

#include <cstring>
#include <protozero/buffer_string.hpp>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

namespace tessera {
namespace {

using protozero::pbf_wire_type;

// Field numbers of protos/data_plane.proto.
enum RequestField : uint32_t { kPackageDigest = 1, kModel = 2, kVersion = 3, kEpoch = 4, kBlocks = 5 };
enum BlockField : uint32_t { kTable = 1, kRows32 = 2, kRows64 = 3 };
enum ResponseField : uint32_t { kRows = 1, kRefusal = 2 };
enum RefusalField : uint32_t { kKind = 1, kMessage = 2, kNewestEpoch = 3, kPlacement = 4 };

constexpr uint32_t Tag(uint32_t field, pbf_wire_type type) { return (field << 3) | static_cast<uint32_t>(type); }
constexpr uint32_t Varint(uint32_t field) { return Tag(field, pbf_wire_type::varint); }
constexpr uint32_t Delimited(uint32_t field) { return Tag(field, pbf_wire_type::length_delimited); }

// Most bytes that the tag and length, or tag and varint, of a field take.
constexpr size_t kFieldOverheadBytes = 11;

std::string_view View(protozero::data_view bytes) { return {bytes.data(), bytes.size()}; }
uint32_t FullTag(const protozero::pbf_reader& message) { return Tag(message.tag(), message.wire_type()); }

Status Malformed(const std::string& field, const std::string& what) {
  return Status(Code::kInvalidArgument, field + ": " + what);
}

// Turns what protozero throws about damaged bytes into the status `code`.
template <typename Read>
Status Guarded(Code code, const char* message_name, Read read) {
  try {
    return read();
  } catch (const protozero::exception& error) {
    return Status(code, std::string(message_name) + ": cannot be decoded: " + error.what());
  }
}

Status ReadBlock(protozero::pbf_reader message, size_t index, LookupBlock* block) {
  const auto field = [index](const char* name) { return "blocks[" + std::to_string(index) + "]." + name; };
  bool has_rows = false;
  while (message.next()) {
    switch (FullTag(message)) {
      case Varint(kTable):
        block->table = message.get_uint32();
        break;
      case Delimited(kRows32):
      case Delimited(kRows64): {
        if (has_rows) return Malformed(field("rows"), "given more than once, expected one packed field");
        has_rows = true;
        block->id_width_bytes = message.tag() == kRows32 ? 4 : 8;
        const protozero::data_view rows = message.get_view();
        if (rows.size() % block->id_width_bytes != 0) {
          return Malformed(field("rows"), "got " + std::to_string(rows.size()) + " bytes, expected a multiple of " +
                                              std::to_string(block->id_width_bytes));
        }
        block->rows = reinterpret_cast<const uint8_t*>(rows.data());
        block->rows_count = rows.size() / block->id_width_bytes;
        break;
      }
      default:
        if (message.tag() == kTable) return Malformed(field("table"), "expected a varint");
        if (message.tag() == kRows32 || message.tag() == kRows64) {
          return Malformed(field("rows"), "expected a packed field");
        }
        message.skip();
    }
  }
  return Status();
}

Status ReadRequest(protozero::pbf_reader message, LookupHeader* header, std::vector<LookupBlock>* blocks) {
  while (message.next()) {
    switch (FullTag(message)) {
      case Delimited(kPackageDigest):
        header->package_digest = View(message.get_view());
        break;
      case Delimited(kModel):
        header->model = View(message.get_view());
        break;
      case Varint(kVersion):
        header->version = message.get_int64();
        break;
      case Varint(kEpoch):
        header->epoch = message.get_uint64();
        break;
      case Delimited(kBlocks): {
        if (blocks->size() == kMaxLookupBlocks) {
          return Malformed("blocks", "got more than " + std::to_string(kMaxLookupBlocks));
        }
        blocks->emplace_back();
        const Status status = ReadBlock(message.get_message(), blocks->size() - 1, &blocks->back());
        if (!status.ok()) return status;
        break;
      }
      default:
        if (message.tag() <= kBlocks) {
          return Malformed("field " + std::to_string(message.tag()),
                           "has another wire type than LookupRequest gives it");
        }
        message.skip();
    }
  }
  if (header->package_digest.size() != kPackageDigestBytes) {
    return Malformed("package_digest", "got " + std::to_string(header->package_digest.size()) + " bytes, expected " +
                                           std::to_string(kPackageDigestBytes));
  }
  return Status();
}

Refusal ReadRefusal(protozero::pbf_reader message) {
  Refusal refusal;
  while (message.next()) {
    switch (FullTag(message)) {
      case Varint(kKind): {
        const uint64_t kind = message.get_uint64();
        const bool known = kind <= static_cast<uint64_t>(RefusalKind::kBadRequest);
        refusal.kind = known ? static_cast<RefusalKind>(kind) : RefusalKind::kUnspecified;
        break;
      }
      case Delimited(kMessage):
        refusal.message = View(message.get_view());
        break;
      case Varint(kNewestEpoch):
        refusal.epoch = message.get_uint64();
        break;
      case Delimited(kPlacement):
        refusal.placement = View(message.get_view());
        break;
      default:
        message.skip();
    }
  }
  return refusal;
}

void Append(std::string* to, uint32_t tag, uint64_t value) {
  protozero::add_varint_to_buffer(to, tag);
  protozero::add_varint_to_buffer(to, value);
}

void Append(std::string* to, uint32_t tag, std::string_view bytes) {
  Append(to, tag, uint64_t{bytes.size()});
  to->append(bytes);
}

}  // namespace

LookupRequestWriter::LookupRequestWriter(const LookupHeader& header, size_t blocks, size_t ids_bytes) {
  constexpr size_t kHeaderFields = 4;
  constexpr size_t kBlockFields = 3;  // the block itself, its table, its rows
  message_.reserve(header.package_digest.size() + header.model.size() + kHeaderFields * kFieldOverheadBytes +
                   blocks * kBlockFields * kFieldOverheadBytes + ids_bytes);
  Append(&message_, Delimited(kPackageDigest), header.package_digest);
  Append(&message_, Delimited(kModel), header.model);
  Append(&message_, Varint(kVersion), static_cast<uint64_t>(header.version));
  Append(&message_, Varint(kEpoch), header.epoch);
}

uint8_t* LookupRequestWriter::AddBlock(uint32_t table, uint32_t id_width_bytes, size_t rows_count) {
  const size_t ids_bytes = rows_count * id_width_bytes;
  const auto varint_bytes = [](uint64_t value) { return static_cast<size_t>(protozero::length_of_varint(value)); };
  const size_t block_bytes = 1 + varint_bytes(table) + 1 + varint_bytes(ids_bytes) + ids_bytes;
  Append(&message_, Delimited(kBlocks), uint64_t{block_bytes});
  Append(&message_, Varint(kTable), uint64_t{table});
  Append(&message_, Delimited(id_width_bytes == 4 ? kRows32 : kRows64), uint64_t{ids_bytes});
  const size_t at = message_.size();
  message_.resize(at + ids_bytes);
  return reinterpret_cast<uint8_t*>(message_.data()) + at;
}

std::string BuildLookupRequest(const LookupHeader& header, const LookupBlock* blocks, size_t blocks_count) {
  size_t ids_bytes = 0;
  for (size_t i = 0; i < blocks_count; ++i) ids_bytes += blocks[i].rows_count * blocks[i].id_width_bytes;
  LookupRequestWriter writer(header, blocks_count, ids_bytes);
  for (size_t i = 0; i < blocks_count; ++i) {
    const LookupBlock& block = blocks[i];
    uint8_t* to = writer.AddBlock(block.table, block.id_width_bytes, block.rows_count);
    if (block.rows_count != 0) memcpy(to, block.rows, block.rows_count * block.id_width_bytes);
  }
  return writer.Finish();
}

Status ParseLookupRequest(const uint8_t* data, size_t size_bytes, LookupHeader* header,
                          std::vector<LookupBlock>* blocks) {
  *header = LookupHeader();
  blocks->clear();
  return Guarded(Code::kInvalidArgument, "LookupRequest", [&] {
    return ReadRequest(protozero::pbf_reader(reinterpret_cast<const char*>(data), size_bytes), header, blocks);
  });
}

const char* RefusalKindName(RefusalKind kind) {
  switch (kind) {
    case RefusalKind::kUnspecified:
      break;
    case RefusalKind::kNotOwner:
      return "NOT_OWNER";
    case RefusalKind::kDraining:
      return "DRAINING";
    case RefusalKind::kOverloaded:
      return "OVERLOADED";
    case RefusalKind::kBadRequest:
      return "BAD_REQUEST";
  }
  return "UNSPECIFIED";
}

Status ParseLookupResponse(const uint8_t* data, size_t size_bytes, LookupResponseView* view) {
  *view = LookupResponseView();
  return Guarded(Code::kInternal, "LookupResponse", [&] {
    protozero::pbf_reader message(reinterpret_cast<const char*>(data), size_bytes);
    bool has_rows = false;
    while (message.next()) {
      switch (FullTag(message)) {
        case Delimited(kRows): {
          const protozero::data_view rows = message.get_view();
          view->rows = reinterpret_cast<const uint8_t*>(rows.data());
          view->rows_bytes = rows.size();
          has_rows = true;
          view->refused = false;  // of a oneof, the last one counts
          break;
        }
        case Delimited(kRefusal):
          view->refusal = ReadRefusal(message.get_message());
          view->refused = true;
          break;
        default:
          message.skip();
      }
    }
    if (!has_rows && !view->refused) return Status(Code::kInternal, "LookupResponse: has neither rows nor refusal");
    return Status();
  });
}

size_t RowsHeaderBytes(size_t rows_bytes) { return 1 + static_cast<size_t>(protozero::length_of_varint(rows_bytes)); }

uint8_t* WriteRowsHeader(size_t rows_bytes, uint8_t* to) {
  *to++ = Delimited(kRows);
  return to + protozero::add_varint_to_buffer(reinterpret_cast<char*>(to), rows_bytes);
}

std::string BuildRefusal(const Refusal& refusal) {
  std::string body;
  body.reserve(refusal.message.size() + refusal.placement.size() + 4 * kFieldOverheadBytes);
  Append(&body, Varint(kKind), static_cast<uint64_t>(refusal.kind));
  Append(&body, Delimited(kMessage), refusal.message);
  Append(&body, Varint(kNewestEpoch), refusal.epoch);
  if (!refusal.placement.empty()) Append(&body, Delimited(kPlacement), refusal.placement);
  std::string message;
  message.reserve(body.size() + kFieldOverheadBytes);
  Append(&message, Delimited(kRefusal), body);
  return message;
}

}  // namespace tessera
