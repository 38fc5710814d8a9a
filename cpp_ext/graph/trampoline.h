// Runs closures on the calling thread, one after the other instead of inside
// each other.
#ifndef TESSERA_CPP_EXT_GRAPH_TRAMPOLINE_H_
#define TESSERA_CPP_EXT_GRAPH_TRAMPOLINE_H_

#include <deque>
#include <functional>
#include <utility>

namespace tessera {

// The runner of graphs with asynchronous kernels. A loop whose kernels answer
// at once would otherwise nest one iteration in the other until the stack is
// full. Closures must not wait for each other: all run on this thread.
inline void RunFlat(std::function<void()> closure) {
  struct Queue {
    bool running = false;
    std::deque<std::function<void()>> waiting;
  };
  thread_local Queue queue;
  if (queue.running) {
    queue.waiting.push_back(std::move(closure));
    return;
  }
  queue.running = true;
  closure();
  while (!queue.waiting.empty()) {
    std::function<void()> next = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    next();
  }
  queue.running = false;
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TRAMPOLINE_H_
