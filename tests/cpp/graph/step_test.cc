#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/graph/status.h"
#include "cpp_ext/graph/trampoline.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/ops/step_context.h"

namespace tessera {
namespace {

TEST(StepSlotTest, OnlyTheRunningStepIsFound) {
  StepSlot slot;
  const int64_t first = slot.BeginStep();
  EXPECT_EQ(FindStep(first), &slot.context());
  const int64_t second = slot.BeginStep();
  EXPECT_EQ(FindStep(first), nullptr);
  EXPECT_EQ(FindStep(second), &slot.context());
  EXPECT_GT(second, 0);
}

TEST(StepSlotTest, IdsOfOtherSessionsAreNotOurs) {
  StepSlot slot;
  slot.BeginStep();
  for (int64_t id : {int64_t{0}, int64_t{1}, int64_t{-1}, INT64_MAX, INT64_MIN, int64_t{1} << 56}) {
    EXPECT_EQ(FindStep(id), nullptr) << id;
  }
}

TEST(StepSlotTest, AGivenBackSlotForgetsItsStep) {
  int64_t id = 0;
  {
    StepSlot slot;
    id = slot.BeginStep();
  }
  EXPECT_EQ(FindStep(id), nullptr);
}

TEST(StepSlotTest, SlotsAreBounded) {
  std::vector<std::unique_ptr<StepSlot>> slots;
  while (true) {
    auto slot = std::make_unique<StepSlot>();
    if (!slot->valid()) break;
    slots.push_back(std::move(slot));
    ASSERT_LE(slots.size(), 65536u);
  }
  EXPECT_EQ(slots.size(), 65536u);
  slots.pop_back();
  EXPECT_TRUE(StepSlot().valid());
}

TEST(StepErrorTest, TheFirstErrorIsKeptUntilTaken) {
  StepError error;
  error.Set(14, "first", 5);
  error.Set(3, "second", 6);
  std::string message;
  EXPECT_EQ(error.Take(&message), 14);
  EXPECT_EQ(message, "first");
  EXPECT_EQ(error.Take(&message), 0);
}

TEST(RunFlatTest, NestedClosuresRunAfterEachOther) {
  std::vector<int> order;
  RunFlat([&] {
    RunFlat([&] { order.push_back(2); });
    order.push_back(1);
  });
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(StatusTest, OnlyCodeMessageAndNodeAreKept) {
  const absl::Status noisy(absl::StatusCode::kInvalidArgument,
                           "bad\n\t [[{{node a}}]]\n\t [[b]]\n\nOriginal stack "
                           "trace for 'a':\n  file.py");
  EXPECT_EQ(CleanStatus(noisy), absl::InvalidArgumentError("bad\n\t [[{{node a}}]]"));
}

TEST(Utf8Test, BytesThatAreNotTextAreReplaced) {
  EXPECT_EQ(ToUtf8("plain é 漢 🙂"), "plain é 漢 🙂");
  EXPECT_EQ(ToUtf8("\xff"
                   "a\xc3"),
            "?a?");
  EXPECT_EQ(ToUtf8("\xed\xa0\x80"), "???");
}

}  // namespace
}  // namespace tessera
