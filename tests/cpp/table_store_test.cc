#include "cpp_ext/table/table_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "cpp_ext/table/gather.h"
#include "cpp_ext/table/table_handler.h"
#include "tests/cpp/table_fixture.h"

namespace tessera {
namespace {

const std::string kDigest(kPackageDigestBytes, 'd');
const LookupHeader kHeader{kDigest, "ranker", 2, 10};

class TableStoreTest : public ::testing::Test {
 protected:
  void Publish(std::vector<std::shared_ptr<const HeldTable>> tables) {
    const Status status = store_.Publish(kDigest, "ranker", 2, std::move(tables));
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void ExpectRefused(const std::string& request, RefusalKind kind, const std::string& part) {
    const auto response = Lookup(&store_, request);
    ASSERT_TRUE(response->status.ok()) << response->status.message();
    ASSERT_TRUE(response->view.refused);
    EXPECT_EQ(response->view.refusal.kind, kind) << response->view.refusal.message;
    EXPECT_NE(response->view.refusal.message.find(part), std::string::npos) << response->view.refusal.message;
  }

  TemporaryDirectory directory_;
  TableStore store_;
};

TEST(HeldTableTest, NamesWhatIsWrong) {
  TemporaryDirectory directory;
  std::shared_ptr<const Blob> blob;
  ASSERT_TRUE(Blob::Map(directory.Write("0123456789"), 10, false, &blob).ok());
  const auto expect = [&](int64_t rows, int64_t row_bytes, uint64_t buckets,
                          std::map<uint64_t, std::shared_ptr<const Blob>> blobs, Code code, const std::string& part) {
    std::shared_ptr<const HeldTable> table;
    const Status status = HeldTable::Make("users", rows, row_bytes, buckets, std::move(blobs), &table);
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find("table users: " + part), std::string::npos) << status.message();
    EXPECT_EQ(table, nullptr);
  };
  expect(-1, 4, 1, {}, Code::kInvalidArgument, "rows: got -1");
  expect(1, 0, 1, {}, Code::kInvalidArgument, "row_bytes: got 0");
  expect(1, kMaxRowBytes + 1, 1, {}, Code::kInvalidArgument, "row_bytes: got");
  expect(INT64_MAX / 4 + 1, 4, 1, {}, Code::kInvalidArgument, "rows: got");
  expect(1, 4, 0, {}, Code::kInvalidArgument, "buckets: got 0");
  expect(1, 4, kMaxBuckets + 1, {}, Code::kInvalidArgument, "buckets: got");
  expect(15, 2, 3, {{3, blob}}, Code::kInvalidArgument, "blobs[3]");
  expect(15, 2, 3, {{1, nullptr}}, Code::kInvalidArgument, "blobs[1]");
  expect(16, 2, 3, {{0, blob}}, Code::kDataLoss, "bucket 0");  // has 6 rows
  expect(14, 2, 3, {{2, blob}}, Code::kDataLoss, "bucket 2");  // has 4 rows
}

TEST(HeldTableTest, RowsOfBucketAddUp) {
  for (const int64_t rows : {0, 1, 2, 16, 17, 18, 1000}) {
    for (const uint64_t buckets : {1, 3, 17, 2000}) {
      uint64_t total = 0;
      for (uint64_t bucket = 0; bucket < buckets; ++bucket) total += RowsOfBucket(rows, buckets, bucket);
      EXPECT_EQ(total, static_cast<uint64_t>(rows));
    }
  }
}

// Every row size that has code of its own and some that have not; counts around the rows under way.
TEST_F(TableStoreTest, RowsAreThoseAskedFor) {
  std::mt19937_64 random(3);
  const std::vector<int64_t> row_sizes = {1, 4, 31, 32, 48, 64, 100, 128, 256, 512, 2000};
  std::vector<std::shared_ptr<const HeldTable>> tables;
  for (const uint64_t buckets : {1, 3, 17}) {
    for (const int64_t row_bytes : row_sizes) {
      tables.push_back(MakeTable(&directory_, tables.size(), 211, row_bytes, buckets));
    }
  }
  Publish(tables);
  uint64_t rows_answered = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<Ids> asked(random() % 6);
    std::string expected;
    for (Ids& ids : asked) {
      ids.table = static_cast<uint32_t>(random() % tables.size());
      ids.id_width_bytes = random() % 2 == 0 ? 4 : 8;
      ids.rows.resize(std::vector<size_t>{0, 1, 2, 15, 16, 17, 63, 64, 65, 200}[random() % 10]);
      for (uint64_t& row : ids.rows) {
        row = random() % 211;
        expected += RowBytes(ids.table, row, tables[ids.table]->row_bytes());
        ++rows_answered;
      }
    }
    const auto response = Lookup(&store_, MakeRequest(kHeader, asked));
    ASSERT_TRUE(response->status.ok()) << response->status.message();
    ASSERT_FALSE(response->view.refused) << response->view.refusal.message;
    ASSERT_EQ(response->rows(), expected);
  }
  EXPECT_EQ(store_.Stats().requests, 300u);
  EXPECT_EQ(store_.Stats().rows, rows_answered);
}

TEST_F(TableStoreTest, RefusesWhatItDoesNotHold) {
  ExpectRefused(MakeRequest(kHeader, {}), RefusalKind::kNotOwner, "package 646464646464 (version 2) is not on this");
  Publish({MakeTable(&directory_, 5, 30, 8, 3, [](uint64_t bucket) { return bucket != 1; })});
  ExpectRefused(MakeRequest(kHeader, {{0, 4, {0, 2, 4}}}), RefusalKind::kNotOwner, "table table5: bucket 1 (of row 4)");
  // Also when the missing row comes after more rows than are under way at once.
  std::vector<uint64_t> many(100, 0);
  many.push_back(7);
  ExpectRefused(MakeRequest(kHeader, {{0, 8, many}}), RefusalKind::kNotOwner, "bucket 1 (of row 7)");
  EXPECT_FALSE(Lookup(&store_, MakeRequest(kHeader, {{0, 4, {0, 2, 3}}}))->view.refused);
  EXPECT_EQ(store_.Stats().refused_not_owner, 3u);
  EXPECT_TRUE(store_.Retire(kDigest));
  EXPECT_FALSE(store_.Retire(kDigest));
  ExpectRefused(MakeRequest(kHeader, {{0, 4, {0}}}), RefusalKind::kNotOwner, "package");
}

TEST_F(TableStoreTest, RefusesBadRequests) {
  Publish({MakeTable(&directory_, 5, 30, 8, 3)});
  ExpectRefused("\x0a", RefusalKind::kBadRequest, "LookupRequest");
  ExpectRefused("", RefusalKind::kBadRequest, "package_digest");
  ExpectRefused(MakeRequest(kHeader, {{1, 4, {0}}}), RefusalKind::kBadRequest,
                "blocks[0].table: got 1, expected less than 1");
  ExpectRefused(MakeRequest(kHeader, {{0, 4, {0}}, {0, 4, {29, 30}}}), RefusalKind::kBadRequest,
                "blocks[1].rows: got row 30, but table table5 has 30 rows");
  std::vector<uint64_t> many(100, 0);
  many.push_back(UINT64_MAX);
  ExpectRefused(MakeRequest(kHeader, {{0, 8, many}}), RefusalKind::kBadRequest, "got row 18446744073709551615");
  LookupHeader other = kHeader;
  other.version = 3;
  ExpectRefused(MakeRequest(other, {{0, 4, {0}}}), RefusalKind::kBadRequest, "model, version");
  EXPECT_EQ(store_.Stats().refused_bad_request, 6u);
}

TEST_F(TableStoreTest, SendsNewerPlacementAlong) {
  const std::string request = MakeRequest(kHeader, {});  // of epoch 10
  EXPECT_EQ(Lookup(&store_, request)->view.refusal.epoch, 0u);
  store_.SetPlacement("ranker", 10, "ten");
  store_.SetPlacement("other", 99, "of another model");
  auto response = Lookup(&store_, request);
  EXPECT_EQ(response->view.refusal.epoch, 10u);
  EXPECT_EQ(response->view.refusal.placement, "");
  store_.SetPlacement("ranker", 11, "eleven");
  store_.SetPlacement("ranker", 9, "late");
  response = Lookup(&store_, request);
  EXPECT_EQ(response->view.refusal.epoch, 11u);
  EXPECT_EQ(response->view.refusal.placement, "eleven");
  store_.SetPlacement("ranker", 12, std::string(1000, 'x'));
  response = Lookup(&store_, request, /*max_response_bytes=*/500);
  EXPECT_EQ(response->view.refusal.epoch, 12u);
  EXPECT_EQ(response->view.refusal.placement, "");  // too large for the message
}

TEST_F(TableStoreTest, DrainsAndReturns) {
  Publish({MakeTable(&directory_, 5, 30, 8, 3)});
  const std::string request = MakeRequest(kHeader, {{0, 4, {1}}});
  store_.SetDraining(true);
  ExpectRefused(request, RefusalKind::kDraining, "about to stop");
  EXPECT_EQ(store_.Stats().refused_draining, 1u);
  store_.SetDraining(false);
  EXPECT_FALSE(Lookup(&store_, request)->view.refused);
}

TEST_F(TableStoreTest, LimitsResponses) {
  Publish({MakeTable(&directory_, 5, 30, 8, 3), MakeTable(&directory_, 6, 30, 8, 3)});
  const std::string request = MakeRequest(kHeader, {{0, 4, {1, 2}}, {1, 4, {3, 4}}});  // 32 bytes and 2 before them
  EXPECT_TRUE(Lookup(&store_, request, 34)->status.ok());
  for (const size_t limit : {33, 32, 31, 17, 0}) {
    const auto response = Lookup(&store_, request, limit);
    EXPECT_EQ(response->status.code(), Code::kResourceExhausted);
    EXPECT_NE(response->status.message().find("limit of " + std::to_string(limit)), std::string::npos);
  }
  EXPECT_EQ(store_.Stats().refused_too_large, 5u);
  EXPECT_EQ(store_.Stats().bytes, 32u);
}

TEST_F(TableStoreTest, PublishChecks) {
  EXPECT_EQ(store_.Publish("short", "m", 1, {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(store_.Publish(kDigest, "", 1, {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(store_.Publish(kDigest, "m", 1, {nullptr}).code(), Code::kInvalidArgument);
}

// Every answer is from one table or the other, whole; and the tables are unmapped when the store has let go of them.
TEST_F(TableStoreTest, ReplacesUnderReaders) {
  std::vector<std::shared_ptr<const HeldTable>> tables = {MakeTable(&directory_, 1, 50, 128, 3),
                                                          MakeTable(&directory_, 2, 50, 128, 3)};
  Publish({tables[0]});
  std::vector<uint64_t> rows;
  std::string expected[2];
  for (uint64_t row = 0; row < 50; ++row) {
    rows.push_back(row);
    for (uint64_t seed : {1, 2}) expected[seed - 1] += RowBytes(seed, row, 128);
  }
  const std::string request = MakeRequest(kHeader, {{0, 4, rows}});
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!done.load()) {
        const auto response = Lookup(&store_, request);
        if (response->view.refused) {
          ASSERT_EQ(response->view.refusal.kind, RefusalKind::kNotOwner);
        } else {
          const std::string got = response->rows();
          ASSERT_TRUE(got == expected[0] || got == expected[1]);
        }
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    Publish({tables[static_cast<size_t>(i % 2)]});
    if (i % 10 == 0) store_.Retire(kDigest);
    store_.SetPlacement("ranker", static_cast<uint64_t>(i), "document");
  }
  store_.Retire(kDigest);
  EXPECT_EQ(tables[0].use_count(), 1);
  EXPECT_EQ(tables[1].use_count(), 1);
  done = true;
  for (std::thread& reader : readers) reader.join();
}

// What a call through abi.h sees.
struct FakeCall {
  std::string request;
  int code = -1;
  std::string message, response;
};

const TesseraCallApi kFakeApi = {
    TESSERA_ABI_VERSION,
    [](TesseraCall* call, size_t* size_bytes) {
      const std::string& request = reinterpret_cast<FakeCall*>(call)->request;
      *size_bytes = request.size();
      return reinterpret_cast<const uint8_t*>(request.data());
    },
    [](TesseraCall*) -> int64_t { return TESSERA_NO_DEADLINE; },
    [](TesseraCall*, const char*, size_t, size_t*) -> const uint8_t* { return nullptr; },
    [](TesseraCall*, void (*)(void*), void*) {},
    [](TesseraCall*, int64_t) {},
    [](TesseraCall* call, int code, const char* message, size_t message_size, const uint8_t* response,
       size_t response_size, void (*free_response)(void*), void* free_arg) {
      FakeCall* fake = reinterpret_cast<FakeCall*>(call);
      EXPECT_EQ(fake->code, -1) << "finished twice";
      fake->code = code;
      fake->message.assign(message, message_size);
      if (response != nullptr) fake->response.assign(reinterpret_cast<const char*>(response), response_size);
      if (free_response != nullptr) free_response(free_arg);
    },
};

TEST_F(TableStoreTest, HandlerAnswersCalls) {
  auto store = std::make_shared<TableStore>();
  ASSERT_TRUE(store->Publish(kDigest, "ranker", 2, {MakeTable(&directory_, 5, 30, 8, 3)}).ok());
  const TableHandler handler(store, /*max_response_bytes=*/100);
  FakeCall call;
  call.request = MakeRequest(kHeader, {{0, 4, {7}}});
  handler.handler()->handle(handler.handler()->context, &kFakeApi, reinterpret_cast<TesseraCall*>(&call));
  EXPECT_EQ(call.code, 0);
  EXPECT_EQ(call.response.substr(2), RowBytes(5, 7, 8));
  FakeCall large;
  large.request = MakeRequest(kHeader, {{0, 4, std::vector<uint64_t>(100, 7)}});
  handler.handler()->handle(handler.handler()->context, &kFakeApi, reinterpret_cast<TesseraCall*>(&large));
  EXPECT_EQ(large.code, static_cast<int>(Code::kResourceExhausted));
  EXPECT_NE(large.message.find("limit of 100"), std::string::npos);
}

}  // namespace
}  // namespace tessera
