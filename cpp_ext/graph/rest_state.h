// What the calls of a RestEngine share. It lives until the last of them has ended.
#ifndef TESSERA_CPP_EXT_GRAPH_REST_STATE_H_
#define TESSERA_CPP_EXT_GRAPH_REST_STATE_H_

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cpp_ext/graph/predictor.h"
#include "cpp_ext/graph/request_stats.h"
#include "cpp_ext/graph/rest_cost.h"
#include "cpp_ext/graph/rest_engine.h"
#include "cpp_ext/graph/rest_pool.h"

namespace tessera {

// Thread-safe.
class RestState {
 public:
  RestState(std::shared_ptr<Predictor> predictor, const RestOptions& options, int fd);
  ~RestState();

  Predictor& predictor() const { return *predictor_; }
  const RestOptions& options() const { return options_; }
  int fd() const { return fd_; }
  RestPool& pool() { return pool_; }

  // False when there are as many as are allowed.
  bool Enter();
  void Close() { closed_.store(true); }
  bool closed() const { return closed_.load(std::memory_order_relaxed); }
  void Leave() { in_flight_.fetch_sub(1, std::memory_order_relaxed); }
  size_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }

  // The model's statistics if it is served, those of all that are not otherwise. Valid as long as the predictor.
  RequestStats* StatsOf(const std::string& model) const;
  // `stats` stands for a model. Valid as long as this.
  RestCost* CostOf(const RequestStats* stats, Method method);

  // Gives `call` a token by which it can be found until Post or Unregister.
  uint64_t Register(std::weak_ptr<RestCall> call);
  void Unregister(uint64_t token);
  std::shared_ptr<RestCall> Find(uint64_t token);
  std::vector<std::shared_ptr<RestCall>> All();
  void Post(RestAnswer answer);
  std::vector<RestAnswer> Take();

 private:
  std::shared_ptr<Predictor> predictor_;
  const RestOptions options_;
  const int fd_;
  std::atomic<size_t> in_flight_{0};
  std::atomic<bool> closed_{false};
  std::mutex mu_;
  std::unordered_map<const RequestStats*, std::array<RestCost, kMethods>> costs_;  // guarded by mu_; nodes stay
  uint64_t last_token_ = 0;                                                        // guarded by mu_
  std::unordered_map<uint64_t, std::weak_ptr<RestCall>> calls_;                    // guarded by mu_
  std::vector<RestAnswer> answers_;                                                // guarded by mu_
  RestPool pool_;                                                                  // last: its threads use the rest
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REST_STATE_H_
