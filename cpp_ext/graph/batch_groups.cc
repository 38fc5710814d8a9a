#include "cpp_ext/graph/batch_groups.h"

#include <algorithm>
#include <utility>

#include "absl/log/log.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera {

BatchLane& CpuLane(const LaneOptions& options) {
  // Never destroyed: its threads may still work for a graph while the process ends.
  static auto* const lane = new BatchLane("cpu:0", options);
  return *lane;
}

BatchGroups::Entry* BatchGroups::Find(const std::string& region, bool in_loop) {
  std::unique_ptr<Entry>& entry = entries_[region];
  if (entry == nullptr) {
    entry = std::make_unique<Entry>();
    entry->lane_ = lane_;
    entry->in_loop_ = in_loop;
    entry->group_ = lane_->AddGroup(absl::StrCat(owner_, "/", region), in_loop);
  }
  return entry.get();
}

void BatchGroups::Refuse(const std::string& region, absl::Status reason) {
  Entry* entry = Find(region, false);
  entry->refused_ = std::move(reason);
}

absl::Status BatchGroups::SetPolicies(const std::map<std::string, BatchPolicy>& policies) {
  for (const auto& [region, policy] : policies) {
    if (entries_.count(region) == 0) {
      const std::string known =
          absl::StrJoin(entries_, ", ", [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first); });
      return absl::NotFoundError(
          absl::StrCat("policies: ", owner_, " has no batched region \"", region, "\", expected some of: ", known));
    }
    const Status status = policy.Check();
    if (!status.ok()) {
      return absl::Status(static_cast<absl::StatusCode>(status.code()),
                          absl::StrCat("policies: ", region, ": ", status.message()));
    }
  }
  for (const auto& [region, entry] : entries_) {
    const auto found = policies.find(region);
    const BatchPolicy policy = found == policies.end() ? BatchPolicy() : found->second;
    // Calls are cut before the lane admits them, so the smaller size counts while the two differ.
    entry->max_batch_size_.store(std::min(policy.max_batch_size, entry->max_batch_size()), std::memory_order_relaxed);
    const Status status = lane_->SetPolicy(*entry->group_, policy);
    if (!status.ok()) return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
    entry->max_batch_size_.store(policy.max_batch_size, std::memory_order_relaxed);
    entry->splits_large_inputs_.store(policy.split_large_inputs, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

}  // namespace tessera
