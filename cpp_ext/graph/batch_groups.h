// The batched regions of one loaded graph by name, with their policies and statistics.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_GROUPS_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_GROUPS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "cpp_ext/batch/lane.h"

namespace tessera {

// The lane of the CPU: one for the process, made by the first call with these options, which later ones ignore.
BatchLane& CpuLane(const LaneOptions& options = {});

// Filled while a graph is loaded, by one thread; afterwards only policies change. Thread-safe then.
class BatchGroups {
 public:
  class Entry {
   public:
    BatchLane& lane() const { return *lane_; }
    const std::shared_ptr<BatchGroup>& shared_group() const { return group_; }
    BatchGroup& group() const { return *group_; }
    bool in_loop() const { return in_loop_; }
    // Why the region is not batched; OK when it is.
    const absl::Status& refused() const { return refused_; }
    int64_t max_batch_size() const { return max_batch_size_.load(std::memory_order_relaxed); }
    bool splits_large_inputs() const { return splits_large_inputs_.load(std::memory_order_relaxed); }
    // Rows × (padded length - length), summed over padded inputs' elements; and all their elements.
    void CountPadding(uint64_t padding, uint64_t elements) {
      padding_elements_.fetch_add(padding, std::memory_order_relaxed);
      elements_.fetch_add(elements, std::memory_order_relaxed);
    }
    uint64_t padding_elements() const { return padding_elements_.load(std::memory_order_relaxed); }
    uint64_t elements() const { return elements_.load(std::memory_order_relaxed); }

   private:
    friend class BatchGroups;
    BatchLane* lane_ = nullptr;
    std::shared_ptr<BatchGroup> group_;
    bool in_loop_ = false;
    absl::Status refused_;
    std::atomic<int64_t> max_batch_size_{BatchPolicy().max_batch_size};
    std::atomic<bool> splits_large_inputs_{BatchPolicy().split_large_inputs};
    std::atomic<uint64_t> padding_elements_{0};
    std::atomic<uint64_t> elements_{0};
  };

  // `owner` is for messages: "model:version".
  BatchGroups(BatchLane* lane, std::string owner) : lane_(lane), owner_(std::move(owner)) {}

  // The entry of a region, made when it is new. Regions of several signatures with one name share it.
  Entry* Find(const std::string& region, bool in_loop);
  void Refuse(const std::string& region, absl::Status reason);

  // NOT_FOUND: no such region. INVALID_ARGUMENT: the policy. What was not named gets the default policy; nothing is
  // changed on an error.
  absl::Status SetPolicies(const std::map<std::string, BatchPolicy>& policies);
  const std::map<std::string, std::unique_ptr<Entry>>& entries() const { return entries_; }

 private:
  BatchLane* const lane_;
  const std::string owner_;
  std::map<std::string, std::unique_ptr<Entry>> entries_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_GROUPS_H_
