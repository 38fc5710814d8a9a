// Methods that may block, such as those that Python answers: one thread of their own and a bounded queue, so that
// pollers never wait.
//
// Thread-safety: `handler` may be called on any thread; the rest as said.
#ifndef TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_
#define TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"

namespace tessera {

class QueuedMethods {
 public:
  // Answers one call; may block. Runs on the thread of this object.
  using Answer = std::function<Status(std::string_view request, std::string* response)>;

  // Calls above this wait nowhere: they are refused with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxQueued = 64;

  QueuedMethods() = default;
  // Stops.
  ~QueuedMethods();
  QueuedMethods(const QueuedMethods&) = delete;
  QueuedMethods& operator=(const QueuedMethods&) = delete;

  // Returns the handler of one method, which lives as long as this object. REQUIRES: before the server starts.
  const TesseraHandler* Add(Answer answer);

  // Ends what is queued with UNAVAILABLE and joins the thread. May be called twice. REQUIRES: not on that thread.
  void Stop();

 private:
  struct Method {
    QueuedMethods* owner;
    Answer answer;
    TesseraHandler handler;
  };
  struct Item {
    const Method* method;
    const TesseraCallApi* api;
    TesseraCall* call;
  };

  void Enqueue(const Method* method, const TesseraCallApi* api, TesseraCall* call);
  void Serve();

  std::list<Method> methods_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::thread thread_;      // guarded by mutex_ while starting; joined by Stop
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_QUEUED_METHODS_H_
