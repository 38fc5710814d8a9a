#include "cpp_ext/graph/session_runner.h"

#include <utility>

#include "cpp_ext/graph/status.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {

namespace tf = tensorflow;

absl::StatusOr<std::unique_ptr<SessionRunner>> SessionRunner::Build(const Signature& signature, tf::Session* session) {
  tf::CallableOptions options;
  for (const SignatureInput& input : signature.inputs()) options.add_feed(input.tensor);
  for (const std::string& fetch : signature.fetches()) options.add_fetch(fetch);
  options.mutable_run_options()->set_inter_op_thread_pool(-1);
  tf::Session::CallableHandle handle = 0;
  const absl::Status status = session->MakeCallable(options, &handle);
  if (!status.ok()) return CleanStatus(status);
  return std::unique_ptr<SessionRunner>(new SessionRunner(session, handle));
}

SessionRunner::~SessionRunner() { session_->ReleaseCallable(handle_).IgnoreError(); }

void SessionRunner::RunAsync(Step* step) const {
  const bool accepted = WorkerPool::Sessions().Submit([this, step] {
    if (step->cancellation()->IsCancelled()) return step->Finish(absl::CancelledError("the request was cancelled"));
    std::vector<tf::Tensor> results;
    const absl::Status status = session_->RunCallable(handle_, step->args(), &results, /*run_metadata=*/nullptr);
    if (status.ok()) step->results() = std::move(results);
    step->Finish(status.ok() ? status : CleanStatus(status));
  });
  if (!accepted) step->Finish(absl::ResourceExhaustedError("too many requests wait for TensorFlow's session"));
}

}  // namespace tessera
