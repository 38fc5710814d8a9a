#include "cpp_ext/table/table_store.h"

#include <utility>

#include "cpp_ext/table/answer.h"

namespace tessera {

TableStore::TableStore() : snapshot_(std::make_unique<const TableSnapshot>()) {}
TableStore::~TableStore() = default;

Status TableStore::Publish(std::string package_digest, std::string model, int64_t version,
                           std::vector<std::shared_ptr<const HeldTable>> tables) {
  if (package_digest.size() != kPackageDigestBytes) {
    return Status(Code::kInvalidArgument, "package_digest: got " + std::to_string(package_digest.size()) +
                                              " bytes, expected " + std::to_string(kPackageDigestBytes));
  }
  if (model.empty()) return Status(Code::kInvalidArgument, "model: got an empty name");
  for (size_t i = 0; i < tables.size(); ++i) {
    if (tables[i] == nullptr) return Status(Code::kInvalidArgument, "tables[" + std::to_string(i) + "]: got none");
  }
  auto package = std::make_shared<const HeldPackage>(HeldPackage{std::move(model), version, std::move(tables)});
  snapshot_.Replace([&](const TableSnapshot& current) {
    auto next = std::make_unique<TableSnapshot>(current);
    next->packages[std::move(package_digest)] = std::move(package);
    return next;
  });
  return Status();
}

bool TableStore::Retire(const std::string& package_digest) {
  bool was_there = false;
  snapshot_.Replace([&](const TableSnapshot& current) {
    auto next = std::make_unique<TableSnapshot>(current);
    was_there = next->packages.erase(package_digest) != 0;
    return next;
  });
  return was_there;
}

void TableStore::SetPlacement(std::string model, uint64_t epoch, std::string document) {
  auto placement = std::make_shared<const KnownPlacement>(KnownPlacement{epoch, std::move(document)});
  snapshot_.Replace([&](const TableSnapshot& current) {
    auto next = std::make_unique<TableSnapshot>(current);
    std::shared_ptr<const KnownPlacement>& kept = next->placements[std::move(model)];
    if (kept == nullptr || kept->epoch <= epoch) kept = std::move(placement);
    return next;
  });
}

void TableStore::SetDraining(bool draining) {
  snapshot_.Replace([&](const TableSnapshot& current) {
    auto next = std::make_unique<TableSnapshot>(current);
    next->draining = draining;
    return next;
  });
}

void TableStore::Count(Counter counter, uint64_t amount) {
  counters_[ThreadNumber() % kCounterCells].values[counter].fetch_add(amount, std::memory_order_relaxed);
}

TableStoreStats TableStore::Stats() const {
  const auto sum = [this](Counter counter) {
    uint64_t total = 0;
    for (const CounterCell& cell : counters_) total += cell.values[counter].load(std::memory_order_relaxed);
    return total;
  };
  TableStoreStats stats;
  stats.requests = sum(kRequests);
  stats.rows = sum(kRows);
  stats.bytes = sum(kBytes);
  stats.refused_not_owner = sum(kRefusedNotOwner);
  stats.refused_draining = sum(kRefusedDraining);
  stats.refused_bad_request = sum(kRefusedBadRequest);
  stats.refused_overloaded = sum(kRefusedOverloaded);
  stats.refused_too_large = sum(kRefusedTooLarge);
  return stats;
}

Status TableStore::Lookup(const uint8_t* request, size_t request_bytes, size_t max_response_bytes, uint8_t** response,
                          size_t* response_bytes) {
  Answer answer;
  Status status;
  {
    const auto snapshot = snapshot_.Get();
    status = AnswerLookup(*snapshot, request, request_bytes, max_response_bytes, &answer);
  }
  Count(kRequests, 1);
  if (answer.refused) {
    Count(RefusalCounter(answer.refusal), 1);
  } else if (!status.ok()) {
    Count(kRefusedTooLarge, 1);
  } else {
    Count(kRows, answer.rows);
    Count(kBytes, answer.rows_bytes);
  }
  *response = answer.message;
  *response_bytes = answer.message_bytes;
  return status;
}

TableStore::Counter TableStore::RefusalCounter(RefusalKind kind) {
  switch (kind) {
    case RefusalKind::kNotOwner:
      return kRefusedNotOwner;
    case RefusalKind::kDraining:
      return kRefusedDraining;
    case RefusalKind::kOverloaded:
      return kRefusedOverloaded;
    case RefusalKind::kBadRequest:
    case RefusalKind::kUnspecified:
      break;
  }
  return kRefusedBadRequest;
}

}  // namespace tessera
