#include <gtest/gtest.h>

#include <string>
#include <unordered_set>

#include "cpp_ext/base/hash.h"

namespace tessera {
namespace {

// Expected values are those of the reference implementation (Python's `xxhash`).
TEST(XxHash64Test, EqualsReference) {
  EXPECT_EQ(XxHash64("", 0), 0xef46db3751d8e999u);
  EXPECT_EQ(XxHash64("a", 1), 0xd24ec4f1a98c6e5bu);
  struct Case {
    size_t size_bytes;
    uint64_t unseeded, seeded;
  };
  // Lengths around every boundary of the algorithm.
  const Case cases[] = {
      {3, 0x22c08528601d4f27u, 0xb829b5fbba7f12fbu},  {4, 0xfb1e5cf2f1ae4d95u, 0x4d32e4c842c6371eu},
      {7, 0x5613ac510496c04eu, 0x566314bf1bda8aabu},  {8, 0x57cb2b7521f3e21au, 0x696e1fe0e0df37f4u},
      {12, 0x2f53b00266039e64u, 0x2d0207f88149b069u}, {31, 0xe4a0e629e519a4aeu, 0xa348b910bc65b7bdu},
      {32, 0xcc6b8aaada790b2du, 0x41c2eada450d18f0u}, {33, 0x35ec49850475a832u, 0xb6f8c0b76af8f9dau},
      {63, 0xbf9f0ba3cf95b28au, 0xdcfe31720304f52bu}, {64, 0x155ccce4bf32befcu, 0x4779d2a26a5085a9u},
      {65, 0xda5ee441a595cfb8u, 0x7952988b7909c15u},  {100, 0x4826e367566ea023u, 0xe38491a6daeb0e8au}};
  for (const Case& c : cases) {
    std::string data;
    for (size_t i = 0; i < c.size_bytes; ++i) data.push_back(static_cast<char>(i * 37 + 11));
    EXPECT_EQ(XxHash64(data.data(), data.size()), c.unseeded) << c.size_bytes;
    EXPECT_EQ(XxHash64(data.data(), data.size(), 0x9E3779B97F4A7C15u), c.seeded) << c.size_bytes;
  }
}

TEST(XxHash64Test, PartsDoNotMatter) {
  std::string data;
  for (int i = 0; i < 150; ++i) data.push_back(static_cast<char>(i * 31));
  const uint64_t expected = XxHash64(data.data(), data.size());
  for (size_t first = 0; first <= data.size(); ++first) {
    for (size_t second = first; second <= data.size(); second += 7) {
      XxHasher64 hasher;
      hasher.Update(data.data(), first);
      hasher.Update(data.data() + first, second - first);
      hasher.Update(data.data() + second, data.size() - second);
      ASSERT_EQ(hasher.Finish(), expected) << first << " " << second;
    }
  }
}

// A sample of tests/golden/slots.json; tests/native compares with all of it.
TEST(SlotOfTest, GoldenVectors) {
  EXPECT_EQ(SlotOf("", 0, 1), 0u);
  EXPECT_EQ(SlotOf("users", 0, 4096), 2544u);
  EXPECT_EQ(SlotOf("users", 1, 4096), 1425u);
  EXPECT_EQ(SlotOf("embedding", 0, 4096), 1321u);
  EXPECT_EQ(SlotOf("embedding", 1, 4096), 2754u);
  EXPECT_EQ(SlotOf("embedding", 4294967296, 16384), 9217u);
  EXPECT_EQ(SlotOf("user_table/embeddings", 1022, 4093), 310u);
  EXPECT_EQ(SlotOf("\xc3\xa9\xc3\xa9\xc3\xb6/\xe8\xa1\xa8", 16777215, 16384), 6676u);
  EXPECT_EQ(SlotOf(std::string(100, 'a'), (uint64_t{1} << 40) + 5, 4093), 1195u);
}

TEST(MixBitsTest, NeighboursSpreadOverLowBits) {
  std::unordered_set<uint64_t> low_bits;
  for (uint64_t key = 0; key < 1024; ++key) low_bits.insert(MixBits(key << 20) % 4096);
  EXPECT_GT(low_bits.size(), 800u);  // of 1024 balls in 4096 boxes, about 907 boxes get one
}

}  // namespace
}  // namespace tessera
