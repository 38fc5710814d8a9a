#include "cpp_ext/table/answer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "cpp_ext/table/gather.h"

namespace tessera {
namespace {

Status TooLarge(size_t max_response_bytes) {
  return Status(Code::kResourceExhausted, "LookupResponse: the rows asked for take more than the limit of " +
                                              std::to_string(max_response_bytes) +
                                              " bytes of a message; ask for fewer rows at once");
}

std::string BlockField(size_t block, const char* field) {
  return "blocks[" + std::to_string(block) + "]." + field + ": ";
}

// The first digits of the digest are enough to find a package in a log.
std::string PackageName(const LookupHeader& header) {
  std::string name = "package ";
  char digits[3];
  for (const char byte : header.package_digest.substr(0, 6)) {
    snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned char>(byte));
    name += digits;
  }
  return name + " (version " + std::to_string(header.version) + ")";
}

class LookupAnswerer {
 public:
  LookupAnswerer(const TableSnapshot& snapshot, size_t max_response_bytes, Answer* answer)
      : snapshot_(snapshot), max_response_bytes_(max_response_bytes), answer_(*answer) {}

  Status Run(const uint8_t* request, size_t request_bytes) {
    const Status parsed = ParseLookupRequest(request, request_bytes, &header_, &parsed_);
    if (!parsed.ok()) return Refuse(RefusalKind::kBadRequest, parsed.message());
    if (snapshot_.draining) return Refuse(RefusalKind::kDraining, "this server is about to stop");
    const auto package = snapshot_.packages.find(header_.package_digest);
    if (package == snapshot_.packages.end()) {
      return Refuse(RefusalKind::kNotOwner, PackageName(header_) + " is not on this server");
    }
    if (package->second->model != header_.model || package->second->version != header_.version) {
      return Refuse(RefusalKind::kBadRequest, "model, version: got others than those of " + PackageName(header_) +
                                                  ", which is version " + std::to_string(package->second->version) +
                                                  " of model " + package->second->model);
    }
    return Rows(*package->second);
  }

 private:
  Status Rows(const HeldPackage& package) {
    blocks_.clear();
    for (const LookupBlock& block : parsed_) {
      if (block.table >= package.tables.size()) {
        return Refuse(RefusalKind::kBadRequest, BlockField(blocks_.size(), "table") + "got " +
                                                    std::to_string(block.table) + ", expected less than " +
                                                    std::to_string(package.tables.size()));
      }
      const HeldTable& table = *package.tables[block.table];
      const size_t room_bytes = max_response_bytes_ - answer_.rows_bytes;
      if (block.rows_count > room_bytes / table.row_bytes()) return TooLarge(max_response_bytes_);
      answer_.rows += block.rows_count;
      answer_.rows_bytes += block.rows_count * table.row_bytes();
      blocks_.push_back({&table, block.id_width_bytes, block.rows, block.rows_count});
    }
    const size_t message_bytes = RowsHeaderBytes(answer_.rows_bytes) + answer_.rows_bytes;
    if (message_bytes > max_response_bytes_) return TooLarge(max_response_bytes_);
    uint8_t* message = static_cast<uint8_t*>(malloc(message_bytes));
    if (message == nullptr) {
      return Refuse(RefusalKind::kOverloaded,
                    "no memory for a response of " + std::to_string(message_bytes) + " bytes");
    }
    const GatherResult result = Gather(blocks_.data(), blocks_.size(), WriteRowsHeader(answer_.rows_bytes, message));
    if (result.outcome != GatherOutcome::kDone) {
      free(message);
      return RefuseRow(result);
    }
    answer_.message = message;
    answer_.message_bytes = message_bytes;
    return Status();
  }

  Status RefuseRow(const GatherResult& result) {
    const HeldTable& table = *blocks_[result.block].table;
    const std::string row = std::to_string(result.row);
    if (result.outcome == GatherOutcome::kNoSuchRow) {
      return Refuse(RefusalKind::kBadRequest, BlockField(result.block, "rows") + "got row " + row + ", but table " +
                                                  table.name() + " has " + std::to_string(table.rows()) + " rows");
    }
    return Refuse(RefusalKind::kNotOwner, "table " + table.name() + ": bucket " +
                                              std::to_string(result.row % table.buckets()) + " (of row " + row +
                                              ") is not on this server");
  }

  Status Refuse(RefusalKind kind, const std::string& message) {
    answer_.refused = true;
    answer_.refusal = kind;
    answer_.rows = 0;
    answer_.rows_bytes = 0;
    Refusal refusal;
    refusal.kind = kind;
    refusal.message = message;
    const auto placement = snapshot_.placements.find(header_.model);
    if (placement != snapshot_.placements.end()) {
      refusal.epoch = placement->second->epoch;
      // Sent along only where it tells the router which other server to ask.
      const bool elsewhere = kind == RefusalKind::kNotOwner || kind == RefusalKind::kDraining;
      if (elsewhere && refusal.epoch > header_.epoch) refusal.placement = placement->second->document;
    }
    std::string bytes = BuildRefusal(refusal);
    if (bytes.size() > max_response_bytes_ && !refusal.placement.empty()) {
      refusal.placement = {};  // the router has other ways to it
      bytes = BuildRefusal(refusal);
    }
    answer_.message = static_cast<uint8_t*>(malloc(bytes.size()));
    if (answer_.message == nullptr) return Status(Code::kResourceExhausted, "no memory for a refusal: " + message);
    memcpy(answer_.message, bytes.data(), bytes.size());
    answer_.message_bytes = bytes.size();
    return Status();
  }

  // Reused by the lookups of a thread; kMaxLookupBlocks bounds them.
  static thread_local std::vector<LookupBlock> parsed_;
  static thread_local std::vector<GatherBlock> blocks_;

  const TableSnapshot& snapshot_;
  const size_t max_response_bytes_;
  Answer& answer_;
  LookupHeader header_;
};

thread_local std::vector<LookupBlock> LookupAnswerer::parsed_;
thread_local std::vector<GatherBlock> LookupAnswerer::blocks_;

}  // namespace

Status AnswerLookup(const TableSnapshot& snapshot, const uint8_t* request, size_t request_bytes,
                    size_t max_response_bytes, Answer* answer) {
  *answer = Answer();
  return LookupAnswerer(snapshot, max_response_bytes, answer).Run(request, request_bytes);
}

}  // namespace tessera
