// The asynchronous half of TesseraLookup: one call of the fan-out, its
// cancellation and its end.
#ifndef TESSERA_CPP_EXT_OPS_LOOKUP_FLIGHT_H_
#define TESSERA_CPP_EXT_OPS_LOOKUP_FLIGHT_H_

#include <memory>
#include <mutex>
#include <utility>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/ops/step_context.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tessera {

// One lookup in flight. Shared by the thread that starts it, by `done` and by
// the cancellation callback; the last of them gives the handle back.
class Flight {
 public:
  Flight(const TesseraFanoutApi* api, StepContext* step, tensorflow::OpKernelContext* ctx,
         tensorflow::AsyncOpKernel::DoneCallback done)
      : api_(api), step_(step), ctx_(ctx), done_(std::move(done)) {}
  ~Flight() {
    if (handle_ != nullptr) api_->release_lookup(handle_);
  }

  static void Start(std::shared_ptr<Flight> flight, const TesseraGather* gathers, size_t gathers_count) {
    tensorflow::CancellationManager* cancellation = flight->ctx_->cancellation_manager();
    if (cancellation != nullptr) {
      flight->token_ = cancellation->get_cancellation_token();
      if (!cancellation->RegisterCallback(flight->token_, [flight] { flight->Cancel(); })) {
        flight->ctx_->SetStatus(absl::CancelledError("the request was cancelled"));
        auto done = std::move(flight->done_);
        return done();
      }
    }
    // Nothing of the context may be touched below: `done` may run, and end the
    // step, before `start` returns.
    TesseraRoute* route = flight->step_->route;
    const int64_t deadline_ns = flight->step_->deadline_ns;
    auto* self = new std::shared_ptr<Flight>(flight);
    TesseraLookup* handle = flight->api_->start(route, gathers, gathers_count, deadline_ns, &Flight::OnDone, self);
    flight->SetHandle(handle);
  }

 private:
  static void OnDone(void* arg, int code, const char* message, size_t message_size) {
    std::unique_ptr<std::shared_ptr<Flight>> self(static_cast<std::shared_ptr<Flight>*>(arg));
    Flight& flight = **self;
    if (code != 0) {
      flight.step_->error.Set(code, message, message_size);
      flight.ctx_->SetStatus(
          absl::Status(static_cast<absl::StatusCode>(code), absl::string_view(message, message_size)));
    }
    // Does not wait for a callback that is running: `OnDone` may be on its
    // stack.
    if (flight.ctx_->cancellation_manager() != nullptr) {
      flight.ctx_->cancellation_manager()->TryDeregisterCallback(flight.token_);
    }
    auto done = std::move(flight.done_);
    self.reset();
    done();
  }

  void SetHandle(TesseraLookup* handle) {
    std::lock_guard<std::mutex> lock(mu_);
    handle_ = handle;
    if (cancelled_) api_->cancel(handle_);
  }

  void Cancel() {
    TesseraLookup* handle;
    {
      std::lock_guard<std::mutex> lock(mu_);
      cancelled_ = true;
      handle = handle_;
    }
    if (handle != nullptr) api_->cancel(handle);  // outside of the lock: may run `OnDone`
  }

  const TesseraFanoutApi* const api_;
  StepContext* const step_;                 // valid until done_ has been called
  tensorflow::OpKernelContext* const ctx_;  // likewise
  tensorflow::AsyncOpKernel::DoneCallback done_;
  tensorflow::CancellationToken token_ = tensorflow::CancellationManager::kInvalidToken;
  std::mutex mu_;
  TesseraLookup* handle_ = nullptr;  // guarded by mu_ until all sharers but one are gone
  bool cancelled_ = false;           // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_OPS_LOOKUP_FLIGHT_H_
