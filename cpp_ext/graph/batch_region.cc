#include "cpp_ext/graph/batch_region.h"

#include <algorithm>
#include <utility>

#include "absl/log/log.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_assemble.h"
#include "cpp_ext/graph/request_batch.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Shapes of one region that have a queue of their own; the least recently used one gives way.
constexpr size_t kMaxShapes = 64;

// What a call of many rows makes this process allocate is bounded here.
constexpr int64_t kMaxPieces = 16384;

}  // namespace

BatchRegion::BatchRegion(BatchGroups::Entry* entry, ExtractedRegion region, std::shared_ptr<const StepRunner> runner)
    : entry_(entry), lane_(entry->lane()), region_(std::move(region)), runner_(std::move(runner)) {}

void BatchRegion::Close() {
  absl::flat_hash_map<Key, Shape> shapes;
  {
    std::lock_guard<std::mutex> lock(mu_);
    shapes.swap(shapes_);
  }
  // A queue may keep the region a moment longer than the functions and devices that the kernels use.
  runner_.reset();
}

BatchRegion::Shape BatchRegion::Find(const Key& key) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = shapes_.find(key);
  if (found != shapes_.end()) {
    found->second.last_used = ++uses_;
    return found->second;
  }
  if (shapes_.size() >= kMaxShapes) {
    shapes_.erase(std::min_element(shapes_.begin(), shapes_.end(), [](const auto& a, const auto& b) {
      return a.second.last_used < b.second.last_used;
    }));
  }
  Shape& shape = shapes_[key];
  shape.queue = lane_.AddQueue(entry_->shared_group(), shared_from_this());
  shape.slabs = std::make_shared<RowSlabs>();
  shape.last_used = ++uses_;
  return shape;
}

void BatchRegion::Submit(Step* step, tf::OpKernelContext* ctx, tf::AsyncOpKernel::DoneCallback done) {
  auto call = std::make_shared<RegionCall>(this, step, ctx, std::move(done));
  for (int i = 0; i < ctx->num_inputs(); ++i) call->inputs.push_back(ctx->input(i));
  Submit(std::move(call), step);
}

void BatchRegion::Submit(Step* step) {
  auto call = std::make_shared<RegionCall>(this, step);
  call->inputs.assign(step->args().begin(), step->args().end());
  Submit(std::move(call), step);
}

void BatchRegion::Submit(std::shared_ptr<RegionCall> call, Step* step) {
  Key key;
  absl::Status status = Describe(*step, call.get(), &key);
  if (!status.ok()) return call->Finish(status);
  call->pin = step->pin();
  call->deadline_ns = step->slot().context().deadline_ns;
  CountPadding(*call);
  if (in_loop()) step->EnterLoop(this);
  const Shape shape = Find(key);
  const int64_t max_rows = entry_->max_batch_size();
  if (call->rows <= max_rows) {
    // A task that finds the region idle most often runs alone, as it is.
    if (running_count_.load(std::memory_order_relaxed) > 0) {
      CopyToSlab(region_, max_rows, shape.slabs.get(), call.get());
    }
    if (call->WatchCancellation()) lane_.Enqueue(shape.queue, std::move(call));
    return;
  }
  if (region_.whole_request && !entry_->splits_large_inputs()) {
    return call->Finish(TooManyRows(call->rows, max_rows));
  }
  if (call->rows / kMaxPieces >= max_rows) {
    return call->Finish(absl::InvalidArgumentError(absl::StrCat("region ", name(), ": the inputs have ", call->rows,
                                                                " rows, expected fewer than ", kMaxPieces,
                                                                " times max_batch_size, which is ", max_rows)));
  }
  std::vector<std::shared_ptr<BatchTask>> pieces = call->Cut(max_rows);
  if (call->WatchCancellation()) lane_.Enqueue(shape.queue, std::move(pieces));
}

// One run of the region's graph for one batch.
class BatchRegion::Execution {
 public:
  Execution(std::shared_ptr<BatchRegion> region, std::shared_ptr<Batch> batch)
      : region_(std::move(region)), batch_(std::move(batch)) {}

  void Start() {
    step_.Reset(region_->region_.input_types.size(), region_->region_.output_types.size());
    step_.args() = AssembleInputs(region_->region_, *batch_);
    step_.set_done(&Execution::OnDone, this);
    const absl::Status status = SetContext();
    if (!status.ok()) return step_.Finish(status);
    region_->runner_->RunAsync(&step_);
  }
  void Cancel() { step_.Cancel(); }

 private:
  absl::Status SetContext() {
    if (!region_->runner_->needs_context()) return absl::OkStatus();
    if (!step_.slot().valid()) return absl::ResourceExhaustedError("too many requests with lookups are in flight");
    StepContext& context = step_.slot().context();
    const auto& first = static_cast<const RegionTask&>(*batch_->tasks()[0]);
    if (first.pin != nullptr) {  // the same for all: their queue's key has it
      context.fanout = first.pin->fanout();
      context.route = first.pin->route();
    }
    context.deadline_ns = 0;
    for (const std::shared_ptr<BatchTask>& task : batch_->tasks()) {
      context.deadline_ns = std::max(context.deadline_ns, task->deadline_ns);
    }
    return absl::OkStatus();
  }

  static void OnDone(void* arg, absl::Status status) {
    auto* execution = static_cast<Execution*>(arg);
    BatchRegion& region = *execution->region_;
    const std::shared_ptr<Execution> self = region.Forget(execution->batch_.get());
    if (region.runner_->needs_context()) {
      std::string message;
      const int code = self->step_.slot().context().error.Take(&message);
      if (code != 0 && !status.ok()) status = absl::Status(static_cast<absl::StatusCode>(code), message);
    }
    if (status.ok()) status = region.CheckOutputs(self->step_.results(), self->batch_->padded_rows());
    auto result = std::make_unique<RegionResult>();
    result->outputs = std::move(self->step_.results());
    self->step_.Clear();  // the inputs go before the results are handed out
    self->batch_->result = std::move(result);
    region.lane_.Finish(self->batch_, Status(static_cast<Code>(status.code()), std::string(status.message())));
  }

  const std::shared_ptr<BatchRegion> region_;
  const std::shared_ptr<Batch> batch_;
  Step step_;
};

void BatchRegion::Run(std::shared_ptr<Batch> batch) {
  for (const std::shared_ptr<BatchTask>& task : batch->tasks()) {
    static_cast<RegionTask&>(*task).started.store(true, std::memory_order_relaxed);
  }
  // Held until RunAsync has returned. It holds the batch, whose tasks pin the version that all of this belongs to.
  const auto execution = std::make_shared<Execution>(shared_from_this(), batch);
  {
    std::lock_guard<std::mutex> lock(mu_);
    running_[batch.get()] = execution;
  }
  running_count_.fetch_add(1, std::memory_order_relaxed);
  execution->Start();
}

std::shared_ptr<BatchRegion::Execution> BatchRegion::Forget(const Batch* batch) {
  running_count_.fetch_sub(1, std::memory_order_relaxed);
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = running_.find(batch);
  std::shared_ptr<Execution> execution = std::move(found->second);
  running_.erase(found);
  return execution;
}

void BatchRegion::Cancel(Batch* batch) {
  std::shared_ptr<Execution> execution;
  {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = running_.find(batch);
    if (found == running_.end()) return;
    execution = found->second;
  }
  // Not here: cancelling may end the execution on this stack.
  WorkerPool::Background().Submit([execution] { execution->Cancel(); });
}

bool BatchRegion::may_bisect(Code code) const {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
    case Code::kFailedPrecondition:
    case Code::kInternal:
    case Code::kUnknown:
      return true;  // a region has no effects, so rows may run again
    default:
      return false;
  }
}

void BatchRegion::EndRequest(Step* step, const absl::Status& status, bool started) const {
  if (absl::IsAborted(status) && !rows_are_split()) return runner_->RunAsync(step);
  step->Finish(QueueTimeout(status, started));
}

absl::Status BatchRegion::CheckOutputs(const std::vector<tf::Tensor>& outputs, int64_t rows) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const tf::TensorShape& shape = outputs[i].shape();
    if (shape.dims() > 0 && shape.dim_size(0) == rows) continue;
    const std::string what =
        absl::StrCat(region_.whole_request ? "signature " : "region ", name(), ": output ", i, " has shape ",
                     shape.DebugString(), ", expected ", rows, " rows along dimension 0, as the inputs; ");
    if (!region_.whole_request) return absl::FailedPreconditionError(absl::StrCat(what, "it cannot be batched"));
    if (rows_are_split_.exchange(false)) LOG(WARNING) << what << "its requests are not batched from now on";
    return absl::AbortedError(what);
  }
  return absl::OkStatus();
}

}  // namespace tessera
