#include "cpp_ext/rpc/route.h"

#include <algorithm>
#include <utility>

#include "cpp_ext/base/hash.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/send_queue.h"
#include "cpp_ext/table/held_table.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {
namespace {

Status Invalid(const std::string& field, const std::string& given, const std::string& expected) {
  return Status(Code::kInvalidArgument, "route: " + field + " " + given + ", expected " + expected);
}

std::string At(const std::string& field, size_t position) { return field + "[" + std::to_string(position) + "]"; }

Status CheckSlots(const RouteSpec& spec) {
  if (spec.slots.empty() || spec.slots.size() > 65536) {
    return Invalid("slots", "has " + std::to_string(spec.slots.size()) + " entries", "1 to 65536");
  }
  for (size_t slot = 0; slot < spec.slots.size(); ++slot) {
    const std::vector<uint32_t>& targets = spec.slots[slot];
    if (targets.size() > kMaxReplicas) {
      return Invalid(At("slots", slot), "has " + std::to_string(targets.size()) + " replicas",
                     "at most " + std::to_string(kMaxReplicas));
    }
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] >= spec.targets.size()) {
        return Invalid(At("slots", slot), "names target " + std::to_string(targets[i]),
                       "less than the number of targets, " + std::to_string(spec.targets.size()));
      }
      if (std::find(targets.begin(), targets.begin() + i, targets[i]) != targets.begin() + i) {
        return Invalid(At("slots", slot), "names target " + std::to_string(targets[i]) + " twice", "distinct targets");
      }
    }
  }
  return Status();
}

Status CheckTable(const TableSpec& table, size_t position) {
  const std::string field = At("tables", position);
  if (table.name.empty()) return Invalid(field + ".name", "is empty", "the name in the manifest");
  if (table.rows < 0) return Invalid(field + ".rows", "is " + std::to_string(table.rows), "0 or more");
  if (table.row_bytes < 1 || table.row_bytes > kMaxRowBytes) {
    return Invalid(field + ".row_bytes", "is " + std::to_string(table.row_bytes),
                   "1 to " + std::to_string(kMaxRowBytes));
  }
  if (table.buckets < 1 || table.buckets > kMaxBuckets) {
    return Invalid(field + ".buckets", "is " + std::to_string(table.buckets), "1 to " + std::to_string(kMaxBuckets));
  }
  return Status();
}

}  // namespace

Status CheckRouteSpec(const RouteSpec& spec, BucketSlots* bucket_slots) {
  if (spec.model.empty()) return Invalid("model", "is empty", "a name");
  if (spec.package_digest.size() != kPackageDigestBytes) {
    return Invalid("package_digest", "has " + std::to_string(spec.package_digest.size()) + " bytes",
                   std::to_string(kPackageDigestBytes));
  }
  if (spec.targets.size() > 65535) {
    return Invalid("targets", "has " + std::to_string(spec.targets.size()) + " entries", "at most 65535");
  }
  for (size_t i = 0; i < spec.targets.size(); ++i) {
    if (spec.targets[i].server_id.empty()) return Invalid(At("targets", i) + ".server_id", "is empty", "a server's id");
  }
  if (Status status = CheckSlots(spec); !status.ok()) return status;
  const uint32_t slots = static_cast<uint32_t>(spec.slots.size());
  bucket_slots->assign(spec.tables.size(), {});
  for (size_t i = 0; i < spec.tables.size(); ++i) {
    const TableSpec& table = spec.tables[i];
    if (Status status = CheckTable(table, i); !status.ok()) return status;
    std::vector<uint16_t>& of_table = (*bucket_slots)[i];
    of_table.reserve(table.buckets);
    for (uint64_t bucket = 0; bucket < table.buckets; ++bucket) {
      const uint32_t slot = SlotOf(table.name, bucket, slots);
      if (spec.slots[slot].empty()) {
        return Invalid(At("slots", slot), "is empty",
                       "a target that holds bucket " + std::to_string(bucket) + " of table \"" + table.name + "\"");
      }
      of_table.push_back(static_cast<uint16_t>(slot));
    }
  }
  return Status();
}

}  // namespace tessera

TesseraRoute::TesseraRoute(const tessera::RouteSpec& spec, tessera::BucketSlots bucket_slots,
                           std::vector<std::shared_ptr<tessera::Peer>> peers, std::shared_ptr<tessera::Fanout> fanout)
    : model_(spec.model),
      version_(spec.version),
      epoch_(spec.epoch),
      package_digest_(spec.package_digest),
      fanout_(std::move(fanout)),
      trace_(spec.trace),
      targets_(peers.size()) {
  for (size_t i = 0; i < spec.tables.size(); ++i) {
    Table table;
    table.name = spec.tables[i].name;
    table.rows = spec.tables[i].rows;
    table.row_bytes = spec.tables[i].row_bytes;
    table.wide_ids = table.rows > int64_t{UINT32_MAX} + 1;
    table.buckets = tessera::FastDivisor(spec.tables[i].buckets);
    table.bucket_slots = std::move(bucket_slots[i]);
    tables_.push_back(std::move(table));
  }
  const tessera::LookupLimits limits = fanout_->limits(model_);
  for (size_t i = 0; i < peers.size(); ++i) {
    targets_[i].peer = std::move(peers[i]);
    targets_[i].queue =
        std::make_unique<tessera::SendQueue>(this, i, limits, fanout_->options().max_in_flight_lookups_per_server);
  }
  slot_begins_.push_back(0);
  for (const std::vector<uint32_t>& targets : spec.slots) {
    slot_targets_.insert(slot_targets_.end(), targets.begin(), targets.end());
    slot_begins_.push_back(static_cast<uint32_t>(slot_targets_.size()));
    replicated_ = replicated_ || targets.size() > 1;
  }
  fanout_->RouteBegins(model_, epoch_);
}

TesseraRoute::~TesseraRoute() { fanout_->RouteEnds(model_, epoch_); }
