// What REST has learned of the cost of its requests, to run cheap ones where they come in.
#ifndef TESSERA_CPP_EXT_GRAPH_REST_COST_H_
#define TESSERA_CPP_EXT_GRAPH_REST_COST_H_

#include <atomic>
#include <cstdint>

namespace tessera {

// Of one model and method. Thread-safe.
class RestCost {
 public:
  // The nanoseconds that a request is expected to hold the thread that starts it: a moving average of the last dozen;
  // INT64_MAX before the first few.
  int64_t expected_ns() const;
  void Observe(int64_t held_ns);

 private:
  std::atomic<uint32_t> observed_{0};
  std::atomic<int64_t> held_ns_{0};
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REST_COST_H_
