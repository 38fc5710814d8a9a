// Streaming calls of the server, for methods that are rare: each message of the client is handled alone, and at most
// one message of the server waits while another is on its way, so that no stream can grow.
//
// A stream belongs to one completion queue, and is freed on its poller.
#ifndef TESSERA_CPP_EXT_RPC_SERVER_STREAM_H_
#define TESSERA_CPP_EXT_RPC_SERVER_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/poller.h"
#include "cpp_ext/rpc/server_call.h"

namespace tessera {

class ServerStream;

// Handles the streams of one method. All methods run on a poller, for one stream one after the other, and must not
// block. Lives as long as the server.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  // `message` is valid during the call. The next one is read only after ReadNext.
  virtual void OnMessage(ServerStream* stream, std::string_view message) = 0;
  // The client sends no more messages; the stream goes on until Finish.
  virtual void OnHalfClose(ServerStream* stream) = 0;
  // What was sent is on its way, and nothing waits.
  virtual void OnSent(ServerStream*) {}
  // The last event, whoever ended the stream. Nothing has an effect any more.
  virtual void OnEnd(ServerStream*) {}
};

// What the streams of one method share. Constant after construction but for what `mutex` guards.
struct StreamMethod {
  // Larger messages of clients end their stream with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxMessageBytes = 64 << 10;

  StreamMethod(RawService* service, int index, StreamHandler* handler, size_t max_streams,
               grpc::ServerCompletionQueue* queue, ServerCounters* counters, const std::atomic<bool>* shutting_down);

  // Asks gRPC for the next stream. REQUIRES: on the queue's poller, or before it runs.
  void RequestNext();
  // Ends every stream after what is on its way to the client.
  void FinishAll(const Status& status);

  RawService* const service;
  const int index;
  StreamHandler* const handler;
  const size_t max_streams;
  grpc::ServerCompletionQueue* const queue;
  ServerCounters* const counters;
  const std::atomic<bool>* const shutting_down;
  std::mutex mutex;
  std::unordered_set<ServerStream*> open;  // guarded by mutex
};

// One stream. Counted references (ref.h): who wants to use it outside of the handler's methods holds one.
// Thread-safety: Send, ReadNext and Finish from any thread; they have no effect on a stream that has ended.
class ServerStream {
 public:
  ServerStream(const ServerStream&) = delete;
  ServerStream& operator=(const ServerStream&) = delete;

  // Sends a message. While an earlier one is on its way it waits, in the place of what waited before.
  void Send(std::string message);
  // Lets the next message of the client come. One at a time.
  void ReadNext();
  // Ends the stream once what was sent is on its way; the first one counts.
  void Finish(const Status& status);

  void AddRef() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  friend struct StreamMethod;

  struct Event final : Tag {
    Event(ServerStream* stream, void (ServerStream::*on)(bool)) : stream(stream), on(on) {}
    void Run(bool ok) override { (stream->*on)(ok); }
    ServerStream* const stream;
    void (ServerStream::* const on)(bool);
  };

  explicit ServerStream(StreamMethod* home);
  ~ServerStream() = default;

  void Request();
  void OnCall(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  bool Register();
  // Ends the life of the stream once no event is to come. REQUIRES: the last statement of an event.
  void EndIfOver();
  // REQUIRE: mutex_ is held.
  void StartWrite(const std::string& message);
  void StartFinish();

  StreamMethod* const home_;
  Event call_event_, read_event_, write_event_, finish_event_, done_event_;
  std::optional<grpc::ServerContext> context_;
  std::optional<grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> responder_;
  grpc::ByteBuffer incoming_;
  std::atomic<int> references_{1};  // the first is gRPC's, until EndIfOver

  std::mutex mutex_;
  // Guarded by mutex_:
  int events_to_come_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool finishing_ = false;
  bool ended_ = false;
  std::optional<std::string> waiting_;  // to be sent next
  std::optional<Status> outcome_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SERVER_STREAM_H_
