// An accelerator that is not there: a device that works on one batch after the other, each for a time that depends on
// its rows, and uses no CPU for it. What is asked of it meanwhile queues, as on a stream of a real one.
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace {

namespace tf = tensorflow;

REGISTER_OP("SimulatedAccelerator")
    .Input("x: float")
    .Output("y: float")
    .Attr("classes: int >= 1")
    .Attr("batch_micros: int >= 0")
    .Attr("row_micros: int >= 0")
    .SetShapeFn([](tf::shape_inference::InferenceContext* c) {
      int64_t classes;
      TF_RETURN_IF_ERROR(c->GetAttr("classes", &classes));
      tf::shape_inference::ShapeHandle x;
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 2, &x));
      c->set_output(0, c->MakeShape({c->Dim(x, 0), c->MakeDim(classes)}));
      return absl::OkStatus();
    })
    .Doc("Takes batch_micros + row_micros × rows of the device's time. y[i, j]: an element of row i of x.");

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// The one device of the process. Its end is told by two threads, as TensorFlow's event manager of a GPU does.
class Device {
 public:
  static Device& Get() {
    static auto* const device = new Device;  // never destroyed: its threads outlive main
    return *device;
  }
  void Work(int64_t rows, int64_t duration_ns, std::function<void()> done) {
    std::lock_guard<std::mutex> lock(mu_);
    free_ns_ = std::max(NowNs(), free_ns_) + duration_ns;
    running_.emplace_back(free_ns_, std::move(done));
    batches_.fetch_add(1, std::memory_order_relaxed);
    rows_.fetch_add(rows, std::memory_order_relaxed);
    busy_ns_.fetch_add(duration_ns, std::memory_order_relaxed);
    work_.notify_one();
  }
  std::atomic<int64_t> batches_{0}, rows_{0}, busy_ns_{0};

 private:
  static constexpr int kTellers = 2;

  Device() {
    std::thread(&Device::Run, this).detach();
    for (int i = 0; i < kTellers; ++i) std::thread(&Device::Tell, this).detach();
  }
  void Run() {
    prctl(PR_SET_TIMERSLACK, 1UL);
    std::unique_lock<std::mutex> lock(mu_);
    for (;;) {
      work_.wait(lock, [this] { return !running_.empty(); });
      auto [end_ns, done] = std::move(running_.front());
      running_.pop_front();
      lock.unlock();
      const timespec at = {end_ns / 1'000'000'000, end_ns % 1'000'000'000};
      while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
      }
      lock.lock();
      ended_.push_back(std::move(done));
      told_.notify_one();
    }
  }
  void Tell() {
    std::unique_lock<std::mutex> lock(mu_);
    for (;;) {
      told_.wait(lock, [this] { return !ended_.empty(); });
      const std::function<void()> done = std::move(ended_.front());
      ended_.pop_front();
      lock.unlock();
      done();
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable work_, told_;
  int64_t free_ns_ = 0;                                            // guarded by mu_
  std::deque<std::pair<int64_t, std::function<void()>>> running_;  // guarded by mu_; by end
  std::deque<std::function<void()>> ended_;                        // guarded by mu_
};

class SimulatedAcceleratorOp : public tf::AsyncOpKernel {
 public:
  explicit SimulatedAcceleratorOp(tf::OpKernelConstruction* ctx) : tf::AsyncOpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("classes", &classes_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("batch_micros", &batch_micros_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("row_micros", &row_micros_));
  }
  void ComputeAsync(tf::OpKernelContext* ctx, DoneCallback done) override {
    const tf::Tensor& x = ctx->input(0);
    const int64_t rows = x.dims() == 0 ? 0 : x.dim_size(0);
    const int64_t size = rows == 0 ? 0 : x.NumElements() / rows;
    OP_REQUIRES_ASYNC(ctx, x.dims() >= 2 && (rows == 0 || size >= classes_),
                      absl::InvalidArgumentError(absl::StrCat("x: has the shape ", x.shape().DebugString(),
                                                              ", expected rows of at least ", classes_, " elements")),
                      done);
    tf::Tensor* y = nullptr;
    OP_REQUIRES_OK_ASYNC(ctx, ctx->allocate_output(0, {rows, classes_}, &y), done);
    const float* from = x.flat<float>().data();
    float* to = y->flat<float>().data();
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < classes_; ++j) to[i * classes_ + j] = from[i * size + j * (size / classes_)];
    }
    Device::Get().Work(rows, (batch_micros_ + row_micros_ * rows) * 1000, std::move(done));
  }

 private:
  int64_t classes_ = 0, batch_micros_ = 0, row_micros_ = 0;
};

REGISTER_KERNEL_BUILDER(Name("SimulatedAccelerator").Device(tf::DEVICE_CPU), SimulatedAcceleratorOp);

}  // namespace

// What the device has done since the process started.
extern "C" __attribute__((visibility("default"))) void SimulatedAcceleratorTotals(int64_t* batches, int64_t* rows,
                                                                                  int64_t* busy_ns) {
  *batches = Device::Get().batches_.load();
  *rows = Device::Get().rows_.load();
  *busy_ns = Device::Get().busy_ns_.load();
}
