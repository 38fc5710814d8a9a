#include "cpp_ext/graph/shared_threads.h"

#include <memory>

#include "cpp_ext/graph/worker_pool.h"
#include "tensorflow/core/public/session.h"

namespace tessera {

void StartSharedThreads(int intra_op_threads) {
  WorkerPool::Background().Submit([] {});
  tensorflow::SessionOptions options;
  options.config.set_intra_op_parallelism_threads(intra_op_threads);
  options.config.set_inter_op_parallelism_threads(-1);
  // The first session makes the pools, which outlive it.
  const std::unique_ptr<tensorflow::Session> first(tensorflow::NewSession(options));
  if (first == nullptr) LOG(WARNING) << "TensorFlow's threads start with the first graph";
}

}  // namespace tessera
