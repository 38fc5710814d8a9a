// Methods that may block, such as those that Python answers: one thread of their own and a bounded queue, so that
// pollers never wait.
//
// Thread-safety: `handler` may be called on any thread; the rest as said.
#ifndef TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_
#define TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/server_stream.h"

namespace tessera {

class QueuedMethods {
 public:
  // Answers one message; may block. Runs on the thread of this object.
  using Answer = std::function<Status(std::string_view request, std::string* response)>;

  // Messages above this wait nowhere: they are refused with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxQueued = 64;

  QueuedMethods() = default;
  // REQUIRES: Stop has returned true.
  ~QueuedMethods();
  QueuedMethods(const QueuedMethods&) = delete;
  QueuedMethods& operator=(const QueuedMethods&) = delete;

  // Return the handler of one method, which lives as long as this object. In a stream each message of the client gets
  // one answer, before the next is read; an error ends it. REQUIRE: before the server starts.
  const TesseraHandler* Add(Answer answer);
  StreamHandler* AddStream(Answer answer);

  // Ends what is queued with UNAVAILABLE, waits at most `timeout_ns` for the answer that runs, and joins the thread.
  // Returns whether it has ended; may be called again. REQUIRES: not on that thread.
  [[nodiscard]] bool Stop(int64_t timeout_ns);

 private:
  struct Method {
    QueuedMethods* owner;
    Answer answer;
    TesseraHandler handler;
  };
  struct StreamMethod final : StreamHandler {
    StreamMethod(QueuedMethods* owner, Answer answer) : owner(owner), answer(std::move(answer)) {}
    void OnMessage(ServerStream* stream, std::string_view message) override;
    void OnHalfClose(ServerStream* stream) override { stream->Finish(Status()); }
    void OnSent(ServerStream* stream) override { stream->ReadNext(); }
    QueuedMethods* const owner;
    const Answer answer;
  };
  // A call, or a message of a stream.
  struct Item {
    const Answer* answer;
    const TesseraCallApi* api;  // null: a message of a stream
    TesseraCall* call;
    Ref<ServerStream> stream;
    std::string message;
  };

  void Enqueue(Item item);
  void Serve();
  static void Run(const Item& item);
  static void Refuse(const Item& item, const Status& status);

  std::list<Method> methods_;
  std::list<StreamMethod> stream_methods_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;     // guarded by mutex_
  bool stopping_ = false;      // guarded by mutex_
  bool has_thread_ = false;    // guarded by mutex_
  bool thread_ended_ = false;  // guarded by mutex_
  std::thread thread_;         // guarded by mutex_ while starting; joined by Stop
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_
