// One execution of a signature: its inputs, its results and what TensorFlow
// needs to run it. Made once and reused, so that a request allocates as little
// as possible.
//
// Thread-safety: one execution at a time; Cancel may be called from any thread
// while the step's owner keeps it alive.
#ifndef TESSERA_CPP_EXT_GRAPH_STEP_H_
#define TESSERA_CPP_EXT_GRAPH_STEP_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "cpp_ext/ops/step_context.h"
#include "tensorflow/core/common_runtime/rendezvous_mgr.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

class Step : public tensorflow::CallFrameInterface {
 public:
  // Runs once when the execution has ended; the step may be reused or destroyed
  // inside.
  using Done = void (*)(void* arg, absl::Status status);

  Step() = default;
  ~Step() override = default;

  // Sizes for the next execution; `args()` are then to be filled.
  void Reset(size_t args_count, size_t results_count) {
    args_.assign(args_count, tensorflow::Tensor());
    results_.assign(results_count, tensorflow::Tensor());
    cancellation_.emplace();
  }
  // Drops the tensors and what was needed to run.
  void Clear() {
    args_.clear();
    results_.clear();
    container_.reset();
    rendezvous_.reset();
  }

  std::vector<tensorflow::Tensor>& args() { return args_; }
  const std::vector<tensorflow::Tensor>& args() const { return args_; }
  std::vector<tensorflow::Tensor>& results() { return results_; }
  StepSlot& slot() { return slot_; }
  tensorflow::CancellationManager* cancellation() { return &*cancellation_; }
  // Asks the execution to end early. REQUIRES: Reset was called.
  void Cancel() { cancellation_->StartCancel(); }

  void set_done(Done done, void* arg) {
    done_ = done;
    done_arg_ = arg;
  }
  void Finish(absl::Status status) { done_(done_arg_, std::move(status)); }

  // For the executor.
  tensorflow::ScopedStepContainer* MakeContainer(int64_t step_id, tensorflow::ResourceMgr* resources) {
    container_.emplace(step_id, [resources](const std::string& name) { resources->Cleanup(name).IgnoreError(); });
    return &*container_;
  }
  tensorflow::RendezvousInterface* MakeRendezvous(const tensorflow::DeviceMgr* devices) {
    rendezvous_.emplace(devices);
    return &*rendezvous_;
  }

  // CallFrameInterface: the graph's _Arg and _Retval nodes.
  size_t num_args() const override { return args_.size(); }
  size_t num_retvals() const override { return results_.size(); }
  absl::Status GetArg(int index, const tensorflow::Tensor** value) override {
    *value = &args_[static_cast<size_t>(index)];
    return absl::OkStatus();
  }
  absl::Status SetRetval(int index, const tensorflow::Tensor& value) override {
    results_[static_cast<size_t>(index)] = value;
    return absl::OkStatus();
  }

 private:
  std::vector<tensorflow::Tensor> args_;
  std::vector<tensorflow::Tensor> results_;
  StepSlot slot_;
  std::optional<tensorflow::CancellationManager> cancellation_;
  std::optional<tensorflow::ScopedStepContainer> container_;
  std::optional<tensorflow::PrivateIntraProcessRendezvous> rendezvous_;
  Done done_ = nullptr;
  void* done_arg_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_STEP_H_
