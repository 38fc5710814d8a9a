// Where a server listens, what it refuses before gRPC sees it, and a stop that does not wait for ever.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cpp_ext/rpc/certificates.h"
#include "cpp_ext/rpc/listen.h"
#include "cpp_ext/rpc/server.h"
#include "tests/cpp/rpc_raw_stream.h"
#include "tests/cpp/table_fixture.h"

namespace tessera {
namespace {

constexpr int64_t kMs = 1'000'000;

// A listening Unix socket; closing it leaves the file, as a process that dies does.
class Listener {
 public:
  explicit Listener(const std::string& path) : socket_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path.copy(name.sun_path, sizeof(name.sun_path) - 1);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    EXPECT_EQ(listen(socket_, 1), 0);
  }
  ~Listener() { close(socket_); }

 private:
  const int socket_;
};

TEST(RpcListen, AddressesAreChecked) {
  for (const char* good : {"127.0.0.1:0", "[::]:8500", "localhost:65535", "unix:/s", "unix:relative"}) {
    EXPECT_TRUE(CheckAddress(good).ok()) << good;
  }
  for (const std::string bad : {"", "127.0.0.1", ":8500", "h:", "h:65536", "h:-1", "h:8a", "unix:"}) {
    EXPECT_EQ(CheckAddress(bad).code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(CheckAddress("unix:" + std::string(107, 'x')).ok());
  EXPECT_EQ(CheckAddress("unix:" + std::string(108, 'x')).code(), Code::kInvalidArgument);
}

TEST(RpcListen, TheSocketOfADeadProcessIsTakenOverAndThatOfALiveOneIsNot) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/s", address = "unix:" + path;
  EXPECT_TRUE(ClaimUnixSocket(address).ok());
  {
    Listener listener(path);
    const Status status = ClaimUnixSocket(address);
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_EQ(status.message(), "address " + address + ": cannot be bound: another process listens there");
    EXPECT_EQ(access(path.c_str(), F_OK), 0);
  }
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  EXPECT_TRUE(ClaimUnixSocket(address).ok());
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST(RpcListen, AFileThatIsNoSocketIsLeftAlone) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/file";
  std::fclose(std::fopen(path.c_str(), "w"));
  EXPECT_EQ(ClaimUnixSocket("unix:" + path).code(), Code::kUnavailable);
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
}

TEST(RpcListen, TextsThatAreNoPemAreNamed) {
  ServerCertificates certificates;
  EXPECT_TRUE(certificates.Set({}).ok());
  EXPECT_NE(certificates.Set({"x", "", ""}).message().find("expected both"), std::string::npos);
  EXPECT_NE(certificates.Set({"", "", "x"}).message().find("tls_client_ca"), std::string::npos);
  const std::string damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  for (const std::string& text : {std::string("x"), damaged, std::string(3, '\0')}) {
    const Status status = certificates.Set({text, text, ""});
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_EQ(status.message(), "tls_certificate: expected certificates in PEM");
  }
  EXPECT_EQ(certificates.MakeCredentials(), nullptr);
}

class RpcServer : public OverGrpc {};

TEST_F(RpcServer, AnAddressThatCannotBeBoundIsNamedAmongSeveral) {
  TemporaryDirectory directory;
  ServerOptions options;
  options.pollers = 1;
  options.listen = {{"127.0.0.1:0"}, {"unix:" + directory.path() + "/no/such/folder"}};
  Server server(options);
  std::vector<int> ports;
  const Status status = server.Start(&ports);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("/no/such/folder: cannot be bound"), std::string::npos) << status.message();
}

TEST_F(RpcServer, OptionsThatAreWrongAreNamed) {
  ServerOptions options;
  options.pollers = 1;
  std::vector<int> ports;
  EXPECT_NE(Server(options).Start(&ports).message().find("at least one"), std::string::npos);
  options.listen = {{"127.0.0.1:0"}};
  options.max_message_bytes = 0;
  EXPECT_NE(Server(options).Start(&ports).message().find("max_message_bytes"), std::string::npos);
  options.max_message_bytes = 1;
  options.channel_arguments = {{"", 1}};
  EXPECT_NE(Server(options).Start(&ports).message().find("channel argument"), std::string::npos);
}

// Keeps the one call that comes.
struct Holding {
  TesseraHandler handler{TESSERA_ABI_VERSION, this,
                         [](void* context, const TesseraCallApi* api, TesseraCall* call) {
                           auto* const self = static_cast<Holding*>(context);
                           std::lock_guard<std::mutex> lock(self->mutex);
                           self->api = api;
                           self->call = call;
                         },
                         nullptr};
  bool has_call() {
    std::lock_guard<std::mutex> lock(mutex);
    return call != nullptr;
  }
  std::mutex mutex;
  const TesseraCallApi* api = nullptr;
  TesseraCall* call = nullptr;
};

TEST_F(RpcServer, StopSaysWhoHasNotEndedAndMayBeCalledAgain) {
  TemporaryDirectory directory;
  Holding holding;
  ServerOptions options;
  options.pollers = 1;
  options.listen = {{"unix:" + directory.path() + "/s"}};
  Server server(options);
  ASSERT_TRUE(server.Add("/test.Service/Hold", &holding.handler).ok());
  EXPECT_EQ(server.Add("/test.Service/Hold", &holding.handler).code(), Code::kFailedPrecondition);
  std::vector<int> ports;
  ASSERT_TRUE(server.Start(&ports).ok());
  RawStream call(Connect(options.listen[0].address), "/test.Service/Hold");
  call.Send("");
  call.HalfClose();
  while (!holding.has_call()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(server.Drain(20 * kMs));
  const Status status = server.Stop(50 * kMs);
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded);
  EXPECT_NE(status.message().find("1 of /test.Service/Hold"), std::string::npos) << status.message();
  holding.api->finish(holding.call, 0, nullptr, 0, nullptr, 0, nullptr, nullptr);
  EXPECT_TRUE(server.Stop(10'000 * kMs).ok());
}

}  // namespace
}  // namespace tessera
