#include "cpp_ext/graph/batch_task.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_region.h"
#include "cpp_ext/graph/batch_rows.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

absl::Status ToAbsl(const Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

}  // namespace

RegionTask::~RegionTask() { ReleasePin(std::move(pin)); }

// Some rows of a call.
class RegionCall::Piece : public RegionTask {
 public:
  Piece(std::shared_ptr<RegionCall> call, int64_t offset) : call_(std::move(call)), offset_(offset) {}
  void Done(const Status& status, Batch* batch, int64_t first_row) override {
    call_->PieceDone(status, batch, first_row, *this);
  }
  int64_t offset() const { return offset_; }

 private:
  const std::shared_ptr<RegionCall> call_;
  const int64_t offset_;
};

tf::CancellationManager* RegionCall::cancellation() const {
  return ctx_ == nullptr ? step_->cancellation() : ctx_->cancellation_manager();
}

void RegionCall::SetOutput(size_t index, tf::Tensor value) {
  if (ctx_ == nullptr) {
    step_->results()[index] = std::move(value);
  } else {
    ctx_->set_output(static_cast<int>(index), std::move(value));
  }
}

bool RegionCall::WatchCancellation() {
  tf::CancellationManager* manager = cancellation();
  if (manager == nullptr) return true;
  token_ = manager->get_cancellation_token();
  std::weak_ptr<RegionCall> weak = weak_from_this();
  const bool watching = manager->RegisterCallback(token_, [weak] {
    if (std::shared_ptr<RegionCall> call = weak.lock()) call->CancelTasks();
  });
  if (!watching) Finish(absl::CancelledError("the request was cancelled"));
  return watching;
}

void RegionCall::CancelTasks() {
  const Status cancelled(Code::kCancelled, "the request was cancelled");
  if (pieces_.empty()) return region_->lane().Cancel(shared_from_this(), cancelled);
  for (const std::weak_ptr<BatchTask>& weak : pieces_) {
    if (std::shared_ptr<BatchTask> piece = weak.lock()) region_->lane().Cancel(piece, cancelled);
  }
}

void RegionCall::Finish(const absl::Status& status) {
  if (ctx_ == nullptr) {
    cancellation()->TryDeregisterCallback(token_);
    return region_->EndRequest(step_, status, started.load(std::memory_order_relaxed));
  }
  if (!status.ok()) {
    ctx_->SetStatus(status);
    // Executors may report another code than the kernel that failed did.
    step_->slot().context().error.Set(static_cast<int>(status.code()), status.message().data(),
                                      status.message().size());
  }
  // Does not wait for a callback that is running: this may be on its stack.
  if (tf::CancellationManager* manager = cancellation()) manager->TryDeregisterCallback(token_);
  const auto done = std::move(done_);
  done();
}

tf::Tensor RegionCall::Output(const RegionResult& result, size_t index, int64_t first_row, int64_t rows) const {
  tf::Tensor output = TakeRows(result.outputs[index], first_row, rows);
  const LengthPadding& padding = region_->padding();
  if (padding.trim_dims.empty() || padding.trim_dims[index] < 1 || lengths.empty()) return output;
  const auto input = static_cast<size_t>(padding.trim_inputs[index]);
  const int dim = padding.trim_dims[index];
  // An output that does not have the input's padded length has no padding to cut.
  if (dim >= output.dims() || output.dim_size(dim) != padded_lengths[input]) return output;
  return CutDimension(output, dim, lengths[input]);
}

void RegionCall::Done(const Status& status, Batch* batch, int64_t first_row) {
  if (status.ok()) {
    const auto& result = static_cast<const RegionResult&>(*batch->result);
    for (size_t i = 0; i < result.outputs.size(); ++i) {
      SetOutput(i, Output(result, i, first_row, input_rows));
    }
  }
  Finish(ToAbsl(status));
}

std::vector<std::shared_ptr<BatchTask>> RegionCall::Cut(int64_t max_rows) {
  std::vector<std::shared_ptr<BatchTask>> pieces;
  for (int64_t offset = 0; offset < input_rows; offset += max_rows) {
    auto piece = std::make_shared<Piece>(shared_from_this(), offset);
    piece->rows = piece->input_rows = std::min(max_rows, input_rows - offset);
    piece->bytes = bytes / input_rows * piece->rows;
    piece->deadline_ns = deadline_ns;
    piece->pin = pin;
    piece->lengths = lengths;
    piece->padded_lengths = padded_lengths;
    for (const tf::Tensor& input : inputs) piece->inputs.push_back(input.Slice(offset, offset + piece->rows));
    pieces_.push_back(piece);
    pieces.push_back(std::move(piece));
  }
  unfinished_ = pieces.size();
  return pieces;
}

absl::Status RegionCall::Join(const RegionResult& result, int64_t first_row, const Piece& piece) {
  const bool first = joined_.empty();
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    const tf::Tensor rows = Output(result, i, first_row, piece.input_rows);
    tf::TensorShape shape = rows.shape();
    shape.set_dim(0, input_rows);
    if (first) joined_.emplace_back(rows.dtype(), shape);
    if (joined_[i].shape() != shape) {
      return absl::FailedPreconditionError(absl::StrCat("region ", region_->name(), ": output ", i, " has shapes ",
                                                        joined_[i].shape().DebugString(), " and ", shape.DebugString(),
                                                        " for two parts of one input"));
    }
    CopyRows(rows, -1, nullptr, piece.offset(), &joined_[i]);
  }
  return absl::OkStatus();
}

void RegionCall::PieceDone(const Status& status, Batch* batch, int64_t first_row, const Piece& piece) {
  if (piece.started.load(std::memory_order_relaxed)) started.store(true, std::memory_order_relaxed);
  absl::Status error = ToAbsl(status);
  bool withdraw = false;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (error.ok() && first_error_.ok()) {
      error = Join(static_cast<const RegionResult&>(*batch->result), first_row, piece);
    }
    if (!error.ok() && first_error_.ok()) {
      first_error_ = error;
      withdraw = true;
    }
  }
  if (withdraw) CancelTasks();  // the call has failed; what still waits of it need not run
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (--unfinished_ > 0) return;
  }
  if (first_error_.ok()) {
    for (size_t i = 0; i < joined_.size(); ++i) SetOutput(i, std::move(joined_[i]));
  }
  Finish(first_error_);
}

}  // namespace tessera
