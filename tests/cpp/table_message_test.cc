#include <gtest/gtest.h>

#include <protozero/buffer_string.hpp>
#include <protozero/pbf_writer.hpp>
#include <random>
#include <vector>

#include "cpp_ext/table/lookup_message.h"
#include "tests/cpp/table_fixture.h"

namespace tessera {
namespace {

const std::string kDigest(kPackageDigestBytes, '\x7f');
const LookupHeader kHeader{kDigest, "ranker", -3, uint64_t{1} << 63};

Status Parse(const std::string& request, LookupHeader* header, std::vector<LookupBlock>* blocks) {
  return ParseLookupRequest(reinterpret_cast<const uint8_t*>(request.data()), request.size(), header, blocks);
}

std::vector<uint64_t> RowsOf(const LookupBlock& block) {
  std::vector<uint64_t> rows;
  for (size_t i = 0; i < block.rows_count; ++i) {
    rows.push_back(block.id_width_bytes == 4 ? LoadLittleEndian<uint32_t>(block.rows + 4 * i)
                                             : LoadLittleEndian<uint64_t>(block.rows + 8 * i));
  }
  return rows;
}

TEST(LookupRequestTest, RoundTrip) {
  const std::vector<Ids> asked = {
      {0, 4, {1, 2, UINT32_MAX}}, {300, 8, {UINT64_MAX, 0}}, {7, 4, {}}, {0, 8, std::vector<uint64_t>(1000, 5)}};
  const std::string request = MakeRequest(kHeader, asked);
  LookupHeader header;
  std::vector<LookupBlock> blocks(3);  // what is in it before does not matter
  ASSERT_TRUE(Parse(request, &header, &blocks).ok());
  EXPECT_EQ(header.package_digest, kDigest);
  EXPECT_EQ(header.model, "ranker");
  EXPECT_EQ(header.version, -3);
  EXPECT_EQ(header.epoch, uint64_t{1} << 63);
  ASSERT_EQ(blocks.size(), asked.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(blocks[i].table, asked[i].table);
    EXPECT_EQ(blocks[i].id_width_bytes, asked[i].id_width_bytes);
    EXPECT_EQ(RowsOf(blocks[i]), asked[i].rows);
  }
  EXPECT_EQ(BuildLookupRequest(kHeader, blocks.data(), blocks.size()), request);
}

TEST(LookupRequestTest, UnknownFieldsAreIgnored) {
  std::string request = MakeRequest(kHeader, {{1, 4, {9}}});
  protozero::pbf_writer writer(request);
  writer.add_string(100, "later");
  writer.add_fixed64(101, 1);
  LookupHeader header;
  std::vector<LookupBlock> blocks;
  ASSERT_TRUE(Parse(request, &header, &blocks).ok());
  EXPECT_EQ(blocks.size(), 1u);
}

void ExpectMalformed(const std::string& request, const std::string& part) {
  LookupHeader header;
  std::vector<LookupBlock> blocks;
  const Status status = Parse(request, &header, &blocks);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}

// A request with one block that `fill` writes.
template <typename Fill>
std::string RequestWithBlock(Fill fill) {
  std::string block;
  protozero::pbf_writer block_writer(block);
  fill(&block_writer);
  std::string request = MakeRequest(kHeader, {});
  protozero::pbf_writer writer(request);
  writer.add_message(5, block);
  return request;
}

TEST(LookupRequestTest, NamesWhatIsMalformed) {
  using Writer = protozero::pbf_writer;
  ExpectMalformed("", "package_digest: got 0 bytes, expected 32");
  const LookupHeader short_digest{"abc", "m", 1, 1};
  ExpectMalformed(MakeRequest(short_digest, {}), "package_digest: got 3 bytes, expected 32");
  ExpectMalformed(RequestWithBlock([](Writer* w) { w->add_bytes(2, "abcde"); }),
                  "blocks[0].rows: got 5 bytes, expected a multiple of 4");
  ExpectMalformed(RequestWithBlock([](Writer* w) { w->add_bytes(3, "abcd"); }),
                  "blocks[0].rows: got 4 bytes, expected a multiple of 8");
  ExpectMalformed(RequestWithBlock([](Writer* w) { w->add_fixed32(2, 5); }), "blocks[0].rows: expected a packed field");
  ExpectMalformed(RequestWithBlock([](Writer* w) {
                    w->add_bytes(2, "abcd");
                    w->add_bytes(3, "abcdefgh");
                  }),
                  "blocks[0].rows: given more than once");
  ExpectMalformed(RequestWithBlock([](Writer* w) { w->add_bytes(1, "a"); }), "blocks[0].table");
  std::string wrong_type = MakeRequest(kHeader, {});
  Writer(wrong_type).add_uint64(2, 5);
  ExpectMalformed(wrong_type, "field 2");
  ExpectMalformed(MakeRequest(kHeader, std::vector<Ids>(kMaxLookupBlocks + 1, Ids{0, 4, {}})), "blocks: got more than");
}

// Whatever arrives, the readers stay inside it (AddressSanitizer) and return.
TEST(LookupMessageTest, DamagedBytesAreHarmless) {
  Refusal refusal;
  refusal.kind = RefusalKind::kNotOwner;
  refusal.message = "message";
  refusal.epoch = 12;
  refusal.placement = "placement";
  std::string rows(5, '\0');
  WriteRowsHeader(3, reinterpret_cast<uint8_t*>(rows.data()));
  const std::string messages[] = {MakeRequest(kHeader, {{0, 4, {1, 2}}, {1, 8, {3}}}), BuildRefusal(refusal), rows};
  std::mt19937_64 random(7);
  const auto read = [](const std::string& bytes) {
    const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
    LookupHeader header;
    std::vector<LookupBlock> blocks;
    uint64_t sum = 0;
    if (ParseLookupRequest(exact.data(), exact.size(), &header, &blocks).ok()) {
      for (const LookupBlock& block : blocks) {
        for (const uint64_t row : RowsOf(block)) sum += row;
      }
      EXPECT_EQ(header.package_digest.size(), kPackageDigestBytes);
    }
    LookupResponseView view;
    if (ParseLookupResponse(exact.data(), exact.size(), &view).ok()) {
      sum += XxHash64(view.rows, view.rows_bytes) + XxHash64(view.refusal.message.data(), view.refusal.message.size());
    }
    return sum;
  };
  uint64_t sum = 0;
  for (const std::string& message : messages) {
    for (size_t size = 0; size <= message.size(); ++size) sum += read(message.substr(0, size));
    for (int i = 0; i < 20'000; ++i) {
      std::string damaged = message;
      for (uint64_t hits = random() % 3 + 1; hits > 0; --hits) {
        damaged[random() % damaged.size()] = static_cast<char>(random());
      }
      sum += read(damaged);
    }
  }
  for (int i = 0; i < 20'000; ++i) {
    std::string noise(random() % 64, '\0');
    for (char& byte : noise) byte = static_cast<char>(random());
    sum += read(noise);
  }
  EXPECT_NE(sum, 0u);
}

TEST(LookupResponseTest, Refusal) {
  Refusal refusal;
  refusal.kind = RefusalKind::kNotOwner;
  refusal.message = "not here";
  refusal.epoch = 300;
  refusal.placement = std::string_view("\0document", 9);
  const std::string bytes = BuildRefusal(refusal);
  LookupResponseView view;
  ASSERT_TRUE(ParseLookupResponse(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &view).ok());
  EXPECT_TRUE(view.refused);
  EXPECT_EQ(view.refusal.kind, RefusalKind::kNotOwner);
  EXPECT_EQ(view.refusal.message, "not here");
  EXPECT_EQ(view.refusal.epoch, 300u);
  EXPECT_EQ(view.refusal.placement, refusal.placement);
  EXPECT_STREQ(RefusalKindName(view.refusal.kind), "NOT_OWNER");
}

TEST(LookupResponseTest, LaterKindsReadAsUnspecified) {
  Refusal refusal;
  refusal.kind = static_cast<RefusalKind>(77);
  const std::string bytes = BuildRefusal(refusal);
  LookupResponseView view;
  ASSERT_TRUE(ParseLookupResponse(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &view).ok());
  EXPECT_TRUE(view.refused);
  EXPECT_EQ(view.refusal.kind, RefusalKind::kUnspecified);
}

TEST(LookupResponseTest, RowsHeader) {
  for (const size_t rows_bytes : {0, 1, 127, 128, 16383, 16384, 1 << 22}) {
    std::string bytes(RowsHeaderBytes(rows_bytes) + rows_bytes, 'r');
    const uint8_t* begin = reinterpret_cast<const uint8_t*>(bytes.data());
    uint8_t* rows = WriteRowsHeader(rows_bytes, reinterpret_cast<uint8_t*>(bytes.data()));
    EXPECT_EQ(static_cast<size_t>(rows - begin), RowsHeaderBytes(rows_bytes));
    LookupResponseView view;
    ASSERT_TRUE(ParseLookupResponse(begin, bytes.size(), &view).ok());
    EXPECT_FALSE(view.refused);
    EXPECT_EQ(view.rows, rows);
    EXPECT_EQ(view.rows_bytes, rows_bytes);
  }
}

TEST(LookupResponseTest, NothingIsAnError) {
  LookupResponseView view;
  EXPECT_EQ(ParseLookupResponse(nullptr, 0, &view).code(), Code::kInternal);
}

}  // namespace
}  // namespace tessera
