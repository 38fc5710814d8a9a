// Streams of the server: health, queued answers, bounds, and how they end.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cpp_ext/rpc/health.h"
#include "cpp_ext/rpc/queued_methods.h"
#include "cpp_ext/rpc/server.h"
#include "tests/cpp/rpc_raw_stream.h"
#include "tests/cpp/table_fixture.h"

namespace tessera {
namespace {

using Serving = HealthService::Serving;

constexpr char kEcho[] = "/test.Service/Echo";
constexpr int64_t kSecondNs = 1'000'000'000;
const std::string kServing = "\x08\x01";
const std::string kNotServing = "\x08\x02";
const std::string kServiceUnknown = "\x08\x03";

// HealthCheckRequest{service}
std::string Ask(const std::string& service) { return std::string{'\x0a', static_cast<char>(service.size())} + service; }

// A server with health, and with a stream that answers "no" with an error and everything else with itself twice.
class Streams {
 public:
  explicit Streams(size_t max_streams = 64) : server_(Options()) {
    health_.Set("a", Serving::kServing);
    EXPECT_TRUE(server_.Add(kHealthCheckMethod, health_.check_handler()).ok());
    EXPECT_TRUE(server_.AddStream(kHealthWatchMethod, health_.watch_handler(), max_streams).ok());
    StreamHandler* const echo = queued_.AddStream([](std::string_view request, std::string* response) {
      if (request == "no") return Status(Code::kNotFound, "no such thing");
      *response = std::string(request) + std::string(request);
      return Status();
    });
    EXPECT_TRUE(server_.AddStream(kEcho, echo, max_streams).ok());
    std::vector<int> ports;
    const Status status = server_.Start(&ports);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(ports, std::vector<int>{0});
    channel_ = Connect(address());
  }
  ~Streams() {
    server_.Drain(0);
    EXPECT_TRUE(queued_.Stop(10 * kSecondNs));
    EXPECT_TRUE(server_.Stop(10 * kSecondNs).ok());
  }

  std::string address() const { return "unix:" + directory_.path() + "/s"; }
  HealthService& health() { return health_; }
  Server& server() { return server_; }
  std::unique_ptr<RawStream> Open(const std::string& method) { return std::make_unique<RawStream>(channel_, method); }
  std::unique_ptr<RawStream> Watch(const std::string& service) {
    auto stream = Open(kHealthWatchMethod);
    stream->Send(Ask(service));
    stream->HalfClose();
    return stream;
  }

 private:
  ServerOptions Options() {
    ServerOptions options;
    options.listen = {{address()}};
    options.pollers = 2;
    return options;
  }

  TemporaryDirectory directory_;
  HealthService health_;
  QueuedMethods queued_;
  Server server_;
  std::shared_ptr<grpc::Channel> channel_;
};

class RpcStream : public OverGrpc {};

TEST_F(RpcStream, WatchTellsTheStatusAndEachChange) {
  Streams streams;
  const auto watch = streams.Watch("a");
  const auto other = streams.Watch("b");
  EXPECT_EQ(watch->Receive(), kServing);
  EXPECT_EQ(other->Receive(), kServiceUnknown);
  streams.health().Set("a", Serving::kServing);  // no change
  streams.health().Set("a", Serving::kNotServing);
  EXPECT_EQ(watch->Receive(), kNotServing);
  streams.health().Set("b", Serving::kServing);
  EXPECT_EQ(other->Receive(), kServing);
}

TEST_F(RpcStream, ADrainTellsWatchersAndEndsThemAtOnce) {
  Streams streams;
  const auto watch = streams.Watch("a");
  EXPECT_EQ(watch->Receive(), kServing);
  streams.health().Drain();
  EXPECT_TRUE(streams.server().Drain(20 * kSecondNs));
  streams.health().Set("a", Serving::kServing);
  EXPECT_EQ(watch->Receive(), kNotServing);
  EXPECT_EQ(watch->Receive(), std::nullopt);
  // Whether the server's text arrives, or the end of the connection before it, is a race in the client.
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(RpcStream, WatchRefusesWhatIsNoRequest) {
  Streams streams;
  for (const std::string& message : {std::string("\x0a\x7f"), std::string("\x0a\x81\x08") + std::string(1025, 'x')}) {
    const auto watch = streams.Open(kHealthWatchMethod);
    watch->Send(message);
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  const auto empty = streams.Open(kHealthWatchMethod);
  empty->HalfClose();
  EXPECT_EQ(empty->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RpcStream, StreamsAboveTheLimitAreRefusedUntilOthersEnd) {
  Streams streams(/*max_streams=*/2);
  auto first = streams.Watch("a");
  const auto second = streams.Watch("a");
  EXPECT_EQ(first->Receive(), kServing);
  EXPECT_EQ(second->Receive(), kServing);
  const grpc::Status refused = streams.Watch("a")->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "too many open streams; the limit is 2, retry later");
  first.reset();  // cancels
  for (int attempt = 0;; ++attempt) {
    if (streams.Watch("a")->Receive() == kServing) break;
    ASSERT_LT(attempt, 1000);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_F(RpcStream, EachMessageIsAnsweredInItsOrder) {
  Streams streams;
  const auto echo = streams.Open(kEcho);
  for (int i = 0; i < 20; ++i) {
    const std::string message(static_cast<size_t>(i), 'x');
    ASSERT_TRUE(echo->Send(message));
    EXPECT_EQ(echo->Receive(), message + message);
  }
  // More at once than are read.
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(echo->Send(std::to_string(i)));
  echo->HalfClose();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(echo->Receive(), std::to_string(i) + std::to_string(i));
  EXPECT_EQ(echo->Receive(), std::nullopt);
  EXPECT_TRUE(echo->Finish().ok());
}

TEST_F(RpcStream, AnErrorEndsTheStream) {
  Streams streams;
  const auto echo = streams.Open(kEcho);
  echo->Send("no");
  EXPECT_EQ(echo->Receive(), std::nullopt);
  const grpc::Status status = echo->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such thing");
}

TEST_F(RpcStream, AMessageThatIsTooLargeEndsTheStream) {
  Streams streams;
  const auto echo = streams.Open(kEcho);
  EXPECT_TRUE(echo->Send(std::string(StreamMethod::kMaxMessageBytes, 'x')));
  EXPECT_NE(echo->Receive(), std::nullopt);
  echo->Send(std::string(StreamMethod::kMaxMessageBytes + 1, 'x'));
  EXPECT_EQ(echo->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// Statuses change, watchers come and go, messages are answered, and then the server stops in the middle of it.
TEST_F(RpcStream, ManyAtOnceWhileTheServerStops) {
  auto streams = std::make_unique<Streams>();
  std::atomic<bool> ended{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      const auto channel = Connect(streams->address());
      for (int turn = 0; !ended; ++turn) {
        RawStream watch(channel, kHealthWatchMethod);
        watch.Send(Ask("a"));
        for (int message = 0; message < turn % 4; ++message) watch.Receive();
        if (turn % 3 == i) watch.Cancel();
      }
    });
    threads.emplace_back([&] {
      const auto channel = Connect(streams->address());
      for (int turn = 0; !ended; ++turn) {
        RawStream echo(channel, kEcho);
        for (int message = 0; message < turn % 5; ++message) {
          if (!echo.Send("x") || echo.Receive() != "xx") break;
        }
      }
    });
  }
  for (int turn = 0; turn < 300; ++turn) {
    streams->health().Set("a", turn % 2 == 0 ? Serving::kNotServing : Serving::kServing);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  streams->server().Drain(0);
  ended = true;
  for (std::thread& thread : threads) thread.join();
  streams.reset();
}

}  // namespace
}  // namespace tessera
