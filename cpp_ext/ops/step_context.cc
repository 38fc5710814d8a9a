#include "cpp_ext/ops/step_context.h"

#include <memory>
#include <utility>
#include <vector>

namespace tessera {
namespace {

constexpr int kSlotBits = 16;
constexpr int32_t kSlots = 1 << kSlotBits;
constexpr int kGenerationBits = 40;
constexpr uint64_t kGenerationMask = (uint64_t{1} << kGenerationBits) - 1;
// Non-negative, and above every id that a session counts up to.
constexpr uint64_t kTag = uint64_t{0x5A} << (kSlotBits + kGenerationBits);
constexpr uint64_t kTagMask = ~((uint64_t{1} << (kSlotBits + kGenerationBits)) - 1);

struct Slot {
  std::atomic<uint64_t> generation{0};
  StepContext context;
};

// Slots are made when first needed and never freed: a late reader of a stale id
// must find readable memory.
struct Table {
  std::atomic<Slot*> slots[kSlots] = {};
  std::mutex mu;
  std::vector<int32_t> free;  // guarded by mu
  int32_t used = 0;           // guarded by mu
};

Table& TheTable() {
  static Table* table = new Table;
  return *table;
}

}  // namespace

void StepError::Set(int code, const char* message, size_t message_size) {
  std::lock_guard<std::mutex> lock(mu_);
  if (code_ != 0) return;
  code_ = code;
  message_.assign(message, message_size);
}

int StepError::Take(std::string* message) {
  std::lock_guard<std::mutex> lock(mu_);
  *message = std::move(message_);
  message_.clear();
  return std::exchange(code_, 0);
}

StepSlot::StepSlot() : index_(-1) {
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mu);
  if (!table.free.empty()) {
    index_ = table.free.back();
    table.free.pop_back();
  } else if (table.used < kSlots) {
    index_ = table.used++;
    table.slots[index_].store(new Slot, std::memory_order_release);
  }
}

StepSlot::~StepSlot() {
  if (!valid()) return;
  BeginStep();  // whoever still knows an old id must not find the next owner's
                // step
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mu);
  table.free.push_back(index_);
}

int64_t StepSlot::BeginStep() {
  Slot* slot = TheTable().slots[index_].load(std::memory_order_relaxed);
  const uint64_t generation = (slot->generation.load(std::memory_order_relaxed) + 1) & kGenerationMask;
  slot->generation.store(generation, std::memory_order_release);
  return static_cast<int64_t>(kTag | (generation << kSlotBits) | static_cast<uint64_t>(index_));
}

StepContext& StepSlot::context() { return TheTable().slots[index_].load(std::memory_order_relaxed)->context; }

StepContext* FindStep(int64_t step_id) {
  const uint64_t id = static_cast<uint64_t>(step_id);
  if ((id & kTagMask) != kTag) return nullptr;
  Slot* slot = TheTable().slots[id & (kSlots - 1)].load(std::memory_order_acquire);
  if (slot == nullptr) return nullptr;
  const uint64_t generation = (id >> kSlotBits) & kGenerationMask;
  return slot->generation.load(std::memory_order_acquire) == generation ? &slot->context : nullptr;
}

}  // namespace tessera
