// Shard servers, a clock and a timer for tests of the fan-out: everything happens when the test says so, on its thread.
#ifndef TESSERA_TESTS_CPP_RPC_FAKE_SERVERS_H_
#define TESSERA_TESTS_CPP_RPC_FAKE_SERVERS_H_

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/base/hash.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kRetryDelayNs = 50 * kMs;

// The bytes of a row: made from table and id, so that each can be checked.
inline std::string RowBytes(const TableSpec& table, uint64_t id) {
  std::string bytes;
  for (uint64_t i = 0; bytes.size() < static_cast<size_t>(table.row_bytes); ++i) {
    const uint64_t word = MixBits(XxHash64(table.name.data(), table.name.size()) + id * 1000003 + i);
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(static_cast<size_t>(table.row_bytes));
  return bytes;
}

class ManualTimer final : public RetryTimer {
 public:
  void Schedule(TimerEntry* entry, int64_t at_ns) override { waiting_.Append(entry, at_ns); }
  void ScheduleDeadline(TimerEntry* entry, int64_t at_ns) override { waiting_.Insert(entry, at_ns); }
  bool Remove(TimerEntry* entry) override { return waiting_.Remove(entry); }
  void Fire(int64_t now_ns) {
    while (TimerEntry* const due = waiting_.PopDue(now_ns)) due->OnTimer();
  }
  bool empty() const { return waiting_.next_at_ns() == INT64_MAX; }

 private:
  TimerList waiting_;
};

// A sub-request that a fake server got and has not answered.
class FakeCall final : public TransportCall {
 public:
  void Cancel() override { cancelled = true; }

  void AnswerRows() { AnswerBytes(Rows()); }
  void AnswerBytes(const std::string& rows) {
    std::vector<uint8_t> response(RowsHeaderBytes(rows.size()) + rows.size());
    uint8_t* const to = WriteRowsHeader(rows.size(), response.data());
    memcpy(to, rows.data(), rows.size());
    TakeDone()(Status(), response.data(), response.size());
  }
  void Refuse(RefusalKind kind, uint64_t epoch = 0) {
    Refusal refusal;
    refusal.kind = kind;
    refusal.message = "the reason";
    refusal.epoch = epoch;
    const std::string response = BuildRefusal(refusal);
    TakeDone()(Status(), reinterpret_cast<const uint8_t*>(response.data()), response.size());
  }
  void Fail(Code code, const std::string& message = "broken") { TakeDone()(Status(code, message), nullptr, 0); }

  // The ids asked for, by table, in the order of the request.
  std::vector<std::pair<uint32_t, std::vector<uint64_t>>> Asked() const {
    LookupHeader header;
    std::vector<LookupBlock> blocks;
    const Status status =
        ParseLookupRequest(reinterpret_cast<const uint8_t*>(request.data()), request.size(), &header, &blocks);
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<std::pair<uint32_t, std::vector<uint64_t>>> asked;
    for (const LookupBlock& block : blocks) {
      asked.push_back({block.table, {}});
      for (size_t i = 0; i < block.rows_count; ++i) {
        const uint8_t* const from = block.rows + i * block.id_width_bytes;
        asked.back().second.push_back(block.id_width_bytes == 4 ? LoadLittleEndian<uint32_t>(from)
                                                                : LoadLittleEndian<uint64_t>(from));
      }
    }
    return asked;
  }

  std::string server_id;
  std::string request;
  int64_t deadline_ns = 0;
  bool cancelled = false;
  bool ended = false;
  const std::vector<TableSpec>* tables = nullptr;
  Transport::Done done;

 private:
  Transport::Done TakeDone() {
    EXPECT_FALSE(ended) << server_id << " answered twice";
    ended = true;
    return std::move(done);
  }
  std::string Rows() const {
    std::string rows;
    for (const auto& [table, ids] : Asked()) {
      for (const uint64_t id : ids) rows += RowBytes((*tables)[table], id);
    }
    return rows;
  }
};

// A route over fake servers, and what they were sent.
class FakeServers {
 public:
  explicit FakeServers(FanoutOptions options = DefaultOptions()) {
    FanoutParts parts;
    parts.now_ns = [this] { return now_ns; };
    auto owned_timer = std::make_unique<ManualTimer>();
    timer = owned_timer.get();
    parts.timer = std::move(owned_timer);
    parts.connect = [this](const TargetSpec& target) {
      return std::make_shared<FakeTransport>(this, target.server_id);
    };
    const Status status = Fanout::Create(std::move(parts), std::move(options), &fanout);
    EXPECT_TRUE(status.ok()) << status.message();
  }

  static FanoutOptions DefaultOptions() {
    FanoutOptions options;
    options.retry_delay_ns = kRetryDelayNs;
    options.retry_budget_tokens = 1024;
    options.max_message_bytes = 1 << 20;
    return options;
  }

  // `servers` targets s0, s1, …; slot i is on servers i, i + 1, … (mod servers), `replicas` of them.
  static RouteSpec Spec(size_t servers, size_t replicas, size_t slots = 64) {
    RouteSpec spec;
    spec.model = "ranker";
    spec.version = 7;
    spec.epoch = 3;
    spec.package_digest = std::string(32, 'd');
    for (size_t i = 0; i < servers; ++i) {
      spec.targets.push_back({"s" + std::to_string(i), "host" + std::to_string(i) + ":1", nullptr});
    }
    for (size_t slot = 0; slot < slots; ++slot) {
      spec.slots.emplace_back();
      for (size_t i = 0; i < replicas; ++i) spec.slots.back().push_back(static_cast<uint32_t>((slot + i) % servers));
    }
    spec.tables = {{"words", 1000, 8, 17}, {"users", 5000, 20, 31}, {"wide", int64_t{1} << 40, 12, 5}};
    return spec;
  }

  void MakeRoute(RouteSpec spec) {
    tables = spec.tables;
    const Status status = fanout->MakeRoute(std::move(spec), &route);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  // The sub-requests not ended yet, oldest first.
  std::vector<std::shared_ptr<FakeCall>> Open() const {
    std::vector<std::shared_ptr<FakeCall>> open;
    for (const auto& call : calls) {
      if (!call->ended) open.push_back(call);
    }
    return open;
  }
  // The oldest open sub-request to a server.
  std::shared_ptr<FakeCall> OpenTo(const std::string& server_id) const {
    for (const auto& call : calls) {
      if (!call->ended && call->server_id == server_id) return call;
    }
    ADD_FAILURE() << "nothing is open to " << server_id;
    return nullptr;
  }
  void AnswerAll() {
    for (const auto& call : Open()) call->AnswerRows();
  }
  void Advance(int64_t ns) {
    now_ns += ns;
    timer->Fire(now_ns);
  }

  int64_t now_ns = 1'000'000'000'000;
  ManualTimer* timer = nullptr;
  std::vector<std::shared_ptr<FakeCall>> calls;
  std::vector<TableSpec> tables;
  // Runs inside Start, on the new call; for servers that answer at once.
  std::function<void(FakeCall*)> on_start;
  std::shared_ptr<Fanout> fanout;
  Ref<TesseraRoute> route;

 private:
  class FakeTransport final : public Transport {
   public:
    FakeTransport(FakeServers* servers, std::string server_id) : servers_(servers), server_id_(std::move(server_id)) {}
    std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) override {
      auto call = std::make_shared<FakeCall>();
      call->server_id = server_id_;
      call->request = std::move(request);
      call->deadline_ns = deadline_ns;
      call->done = std::move(done);
      call->tables = &servers_->tables;
      servers_->calls.push_back(call);
      if (servers_->on_start) servers_->on_start(call.get());
      return call;
    }

   private:
    FakeServers* const servers_;
    const std::string server_id_;
  };
};

// One lookup and its outcome.
class TestLookup {
 public:
  struct Ids {
    uint32_t table;
    std::vector<int64_t> ids;
    uint32_t width_bytes = 8;
  };

  TestLookup(FakeServers* servers, std::vector<Ids> wanted, int64_t deadline_ns = TESSERA_NO_DEADLINE)
      : servers_(servers), wanted_(std::move(wanted)) {
    std::vector<TesseraGather> gathers;
    for (const Ids& ids : wanted_) {
      const size_t row_bytes =
          ids.table < servers->tables.size() ? static_cast<size_t>(servers->tables[ids.table].row_bytes) : 8;
      rows_.emplace_back(ids.ids.size() * row_bytes, '\xEE');
      packed_.emplace_back();
      for (const int64_t id : ids.ids) {
        packed_.back().append(reinterpret_cast<const char*>(&id), ids.width_bytes);
      }
    }
    for (size_t i = 0; i < wanted_.size(); ++i) {
      gathers.push_back(
          {wanted_[i].table, wanted_[i].width_bytes, packed_[i].data(), wanted_[i].ids.size(), rows_[i].data()});
    }
    handle_ = FanoutApi()->start(servers->route.get(), gathers.data(), gathers.size(), deadline_ns, &OnDone, this);
  }
  ~TestLookup() {
    EXPECT_EQ(done_count, 1) << "done must run exactly once";
    FanoutApi()->release_lookup(handle_);
  }
  TestLookup(const TestLookup&) = delete;

  void Cancel() { FanoutApi()->cancel(handle_); }

  // Checks that the lookup ended well and every output row is that of its id.
  void ExpectRows() const {
    ASSERT_EQ(done_count, 1);
    ASSERT_EQ(code, 0) << message;
    for (size_t i = 0; i < wanted_.size(); ++i) {
      std::string expected;
      for (const int64_t id : wanted_[i].ids) {
        expected += RowBytes(servers_->tables[wanted_[i].table], static_cast<uint64_t>(id));
      }
      ASSERT_EQ(rows_[i], expected) << "gather " << i;
    }
  }
  void ExpectFailure(Code expected, const std::vector<std::string>& texts) const {
    ASSERT_EQ(done_count, 1);
    EXPECT_EQ(code, static_cast<int>(expected)) << message;
    for (const std::string& text : texts)
      EXPECT_NE(message.find(text), std::string::npos) << text << " in: " << message;
  }

  int done_count = 0;
  int code = -1;
  std::string message;

 private:
  static void OnDone(void* arg, int code, const char* message, size_t message_size) {
    auto* const self = static_cast<TestLookup*>(arg);
    ++self->done_count;
    self->code = code;
    self->message.assign(message, message_size);
  }

  FakeServers* const servers_;
  const std::vector<Ids> wanted_;
  std::vector<std::string> packed_;
  std::vector<std::string> rows_;
  TesseraLookup* handle_ = nullptr;
};

// An id of `table` whose bucket is on `target` first.
inline int64_t IdOn(const FakeServers& servers, uint32_t table, uint32_t target, int64_t after = -1) {
  const TesseraRoute::Table& known = servers.route->table(table);
  for (int64_t id = after + 1; id < known.rows; ++id) {
    const uint16_t slot = known.bucket_slots[known.Bucket(static_cast<uint64_t>(id))];
    if (servers.route->replicas(slot).begin[0] == target) return id;
  }
  ADD_FAILURE() << "no id of table " << table << " on target " << target;
  return 0;
}
}  // namespace tessera

#endif  // TESSERA_TESTS_CPP_RPC_FAKE_SERVERS_H_
