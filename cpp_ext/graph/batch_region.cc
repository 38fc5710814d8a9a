#include "cpp_ext/graph/batch_region.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_assemble.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Shapes of one region that have a queue of their own; the least recently used one gives way.
constexpr size_t kMaxShapes = 64;

// A dimension of 0 makes a tensor of any shape cost its sender nothing, so what a call makes this process allocate is
// bounded here: elements of one row, the bytes of the row that stands for a call without rows, and pieces of a call.
constexpr int64_t kMaxRowElements = int64_t{1} << 40;
constexpr int64_t kMaxBlankRowBytes = int64_t{64} << 20;
constexpr int64_t kMaxPieces = 16384;

}  // namespace

BatchRegion::BatchRegion(BatchGroups::Entry* entry, ExtractedRegion region, std::unique_ptr<CompiledGraph> graph)
    : entry_(entry), lane_(entry->lane()), region_(std::move(region)), graph_(std::move(graph)) {}

void BatchRegion::Close() {
  absl::flat_hash_map<Key, Shape> shapes;
  {
    std::lock_guard<std::mutex> lock(mu_);
    shapes.swap(shapes_);
  }
  // A queue may keep the region a moment longer than the functions and devices that the kernels use.
  graph_.reset();
}

int64_t BatchRegion::BucketLength(int64_t length) const {
  const std::vector<int64_t>& buckets = region_.padding.length_buckets;
  if (buckets.empty()) {
    int64_t power = 1;
    while (power < length) power *= 2;
    return power;
  }
  const auto bucket = std::lower_bound(buckets.begin(), buckets.end(), length);
  return bucket == buckets.end() ? length : *bucket;
}

absl::Status BatchRegion::CountBytes(size_t input, int pad_dim, int64_t padded_length, RegionTask* task) const {
  const tf::Tensor& tensor = task->inputs[input];
  const tf::TensorShape& shape = tensor.shape();
  int64_t elements = 1, most = 1;  // of a row; as if no dimension were 0
  for (int d = 1; d < shape.dims(); ++d) {
    const int64_t size = d == pad_dim ? padded_length : shape.dim_size(d);
    if (__builtin_mul_overflow(most, std::max<int64_t>(size, 1), &most) || most > kMaxRowElements) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", input, " has shape ",
                                                     shape.DebugString(), ", expected rows of at most ",
                                                     kMaxRowElements, " elements (dimensions of 0 count as 1)"));
    }
    elements *= size;
  }
  const int64_t row_bytes = elements * tf::DataTypeSize(tensor.dtype());
  if (task->input_rows == 0 && row_bytes > kMaxBlankRowBytes) {
    return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", input, " has shape ",
                                                   shape.DebugString(), ", expected at most ", kMaxBlankRowBytes,
                                                   " bytes a row of an input without rows"));
  }
  int64_t bytes = 0;  // in a batch
  if (__builtin_mul_overflow(row_bytes, std::max<int64_t>(task->input_rows, 1), &bytes)) bytes = INT64_MAX / 2;
  bytes = std::max(bytes, static_cast<int64_t>(tensor.TotalBytes()));
  if (__builtin_add_overflow(task->bytes, bytes, &task->bytes)) task->bytes = INT64_MAX / 2;
  return absl::OkStatus();
}

absl::Status BatchRegion::Describe(const Step& step, RegionTask* task, Key* key) const {
  const std::vector<int>& pad_dims = region_.padding.pad_dims;
  key->push_back(step.pin() == nullptr ? 0 : reinterpret_cast<int64_t>(step.pin()->route()));
  task->input_rows = -1;
  for (size_t i = 0; i < task->inputs.size(); ++i) {
    const tf::TensorShape& shape = task->inputs[i].shape();
    if (shape.dims() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("region ", name(), ": input ", i, " is a scalar, expected rows along dimension 0"));
    }
    if (task->input_rows >= 0 && shape.dim_size(0) != task->input_rows) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", i, " has ", shape.dim_size(0),
                                                     " rows, expected as many as input 0: ", task->input_rows));
    }
    task->input_rows = shape.dim_size(0);
    key->push_back(shape.dims());
    for (int d = 1; d < shape.dims(); ++d) key->push_back(shape.dim_size(d));
    const int dim = pad_dims.empty() ? -1 : pad_dims[i];
    if (dim >= shape.dims()) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", i, " has ", shape.dims(),
                                                     " dimensions, expected a dimension ", dim, " of variable length"));
    }
    const int64_t length = dim < 1 ? 0 : shape.dim_size(dim);
    const int64_t padded_length = dim < 1 ? 0 : BucketLength(std::min(length, kMaxRowElements + 1));
    if (!pad_dims.empty()) {
      task->lengths.push_back(length);
      task->padded_lengths.push_back(padded_length);
    }
    if (dim >= 1) (*key)[key->size() - static_cast<size_t>(shape.dims() - dim)] = padded_length;
    absl::Status status = CountBytes(i, dim, padded_length, task);
    if (!status.ok()) return status;
  }
  task->rows = std::max<int64_t>(1, task->input_rows);
  return absl::OkStatus();
}

void BatchRegion::CountPadding(const RegionTask& task) {
  for (size_t i = 0; i < task.lengths.size(); ++i) {
    if (task.lengths[i] == 0) continue;
    const auto own = static_cast<uint64_t>(task.inputs[i].NumElements());
    const uint64_t padded =
        own / static_cast<uint64_t>(task.lengths[i]) * static_cast<uint64_t>(task.padded_lengths[i]);
    entry_->CountPadding(padded - own, padded);
  }
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
    region_->graph_->RunAsync(&step_);
  }
  void Cancel() { step_.Cancel(); }

 private:
  absl::Status SetContext() {
    if (!region_->graph_->needs_context()) return absl::OkStatus();
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
    if (region.graph_->needs_context()) {
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

absl::Status BatchRegion::CheckOutputs(const std::vector<tf::Tensor>& outputs, int64_t rows) const {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const tf::TensorShape& shape = outputs[i].shape();
    if (shape.dims() > 0 && shape.dim_size(0) == rows) continue;
    return absl::FailedPreconditionError(absl::StrCat("region ", name(), ": output ", i, " has shape ",
                                                      shape.DebugString(), ", expected ", rows,
                                                      " rows along dimension 0, as the inputs; it cannot be batched"));
  }
  return absl::OkStatus();
}

}  // namespace tessera
