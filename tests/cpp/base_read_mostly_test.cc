#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "cpp_ext/base/read_mostly.h"

namespace tessera {
namespace {

// Two numbers that are equal as long as the object lives.
struct Pair {
  Pair(int64_t value, std::atomic<int>* alive) : first(value), second(value), alive(alive) { alive->fetch_add(1); }
  ~Pair() {
    first = -1;
    second = -2;
    alive->fetch_sub(1);
  }
  int64_t first, second;
  std::atomic<int>* alive;
};

TEST(ReadMostlyTest, ReplacesAndFrees) {
  std::atomic<int> alive{0};
  {
    ReadMostly<Pair> value(std::make_unique<const Pair>(1, &alive));
    EXPECT_EQ(value.Get()->first, 1);
    value.Replace([&](const Pair& old) { return std::make_unique<const Pair>(old.first + 1, &alive); });
    EXPECT_EQ(value.Get()->first, 2);
    EXPECT_EQ(alive, 1);  // the old one is gone when Replace returns
  }
  EXPECT_EQ(alive, 0);
}

TEST(ReadMostlyTest, ReadersSeeWholeValuesInOrder) {
  constexpr int kWriters = 2, kReaders = 3, kReplacements = 300;
  std::atomic<int> alive{0};
  std::atomic<bool> done{false};
  ReadMostly<Pair> value(std::make_unique<const Pair>(0, &alive));
  std::vector<std::thread> readers, writers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      int64_t last = 0;
      while (!done.load()) {
        const auto reader = value.Get();
        ASSERT_EQ(reader->first, reader->second);
        ASSERT_GE(reader->first, last);
        last = reader->first;
      }
    });
  }
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      for (int j = 0; j < kReplacements; ++j) {
        value.Replace([&](const Pair& old) { return std::make_unique<const Pair>(old.first + 1, &alive); });
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(value.Get()->first, kWriters * kReplacements);
  EXPECT_EQ(alive, 1);
}

}  // namespace
}  // namespace tessera
