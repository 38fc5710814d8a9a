#include "cpp_ext/rpc/server_stream.h"

#include <utility>
#include <vector>

#include "cpp_ext/rpc/ref.h"

namespace tessera {

StreamMethod::StreamMethod(RawService* service, int index, StreamHandler* handler, size_t max_streams,
                           grpc::ServerCompletionQueue* queue, ServerCounters* counters,
                           const std::atomic<bool>* shutting_down)
    : service(service),
      index(index),
      handler(handler),
      max_streams(max_streams),
      queue(queue),
      counters(counters),
      shutting_down(shutting_down) {}

void StreamMethod::RequestNext() {
  if (shutting_down->load(std::memory_order_acquire)) return;
  (new ServerStream(this))->Request();  // It releases itself.
}

void StreamMethod::FinishAll(const Status& status) {
  std::vector<Ref<ServerStream>> streams;
  {
    std::lock_guard<std::mutex> lock(mutex);
    for (ServerStream* stream : open) streams.push_back(Ref<ServerStream>::Share(stream));
  }
  for (const Ref<ServerStream>& stream : streams) stream->Finish(status);
}

ServerStream::ServerStream(StreamMethod* home)
    : home_(home),
      call_event_(this, &ServerStream::OnCall),
      read_event_(this, &ServerStream::OnRead),
      write_event_(this, &ServerStream::OnWritten),
      finish_event_(this, &ServerStream::OnFinished),
      done_event_(this, &ServerStream::OnDone) {}

void ServerStream::Request() {
  home_->counters->open.Add();
  context_.emplace();
  responder_.emplace(&*context_);
  context_->AsyncNotifyWhenDone(&done_event_);
  home_->service->RequestStream(home_->index, &*context_, &*responder_, home_->queue, &call_event_);
}

void ServerStream::Send(std::string message) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_ || outcome_) return;
  if (writing_) {
    waiting_ = std::move(message);
  } else {
    StartWrite(message);
  }
}

void ServerStream::ReadNext() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_ || outcome_ || reading_) return;
  reading_ = true;
  ++events_to_come_;
  responder_->Read(&incoming_, &read_event_);
}

void ServerStream::Finish(const Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_ || outcome_) return;
  outcome_ = status;
  if (!writing_) StartFinish();
}

void ServerStream::StartWrite(const std::string& message) {
  writing_ = true;
  ++events_to_come_;
  const grpc::Slice slice(message);
  responder_->Write(grpc::ByteBuffer(&slice, 1), &write_event_);
}

void ServerStream::StartFinish() {
  finishing_ = true;
  ++events_to_come_;
  // A client that goes away is how streams without an end of their own end.
  const bool failed = !outcome_->ok() && outcome_->code() != Code::kCancelled;
  if (failed) home_->counters->failed.fetch_add(1, std::memory_order_relaxed);
  responder_->Finish(grpc::Status(static_cast<grpc::StatusCode>(outcome_->code()),
                                  StatusMessage(outcome_->message().data(), outcome_->message().size())),
                     &finish_event_);
}

bool ServerStream::Register() {
  std::lock_guard<std::mutex> lock(home_->mutex);
  if (home_->open.size() >= home_->max_streams) return false;
  home_->open.insert(this);
  return true;
}

void ServerStream::OnCall(bool ok) {
  if (!ok) {  // The server shuts down; the done event of a call that never began does not come.
    OpenSlots& open = home_->counters->open;
    Release();
    open.Remove();
    return;
  }
  home_->RequestNext();
  home_->counters->started.fetch_add(1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++events_to_come_;  // done
  }
  if (!Register()) {
    home_->counters->refused.fetch_add(1, std::memory_order_relaxed);
    Finish(Status(Code::kResourceExhausted,
                  "too many open streams; the limit is " + std::to_string(home_->max_streams) + ", retry later"));
  } else if (home_->shutting_down->load(std::memory_order_acquire)) {  // FinishAll may not have seen it
    Finish(Status(Code::kUnavailable, "the server is shutting down"));
  } else {
    ReadNext();
  }
}

void ServerStream::OnRead(bool ok) {
  bool is_over;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    reading_ = false;
    --events_to_come_;
    is_over = outcome_.has_value();
  }
  grpc::Slice slice;
  if (is_over) {
    // Nobody waits for it.
  } else if (!ok) {
    home_->handler->OnHalfClose(this);
  } else if (incoming_.Length() > StreamMethod::kMaxMessageBytes) {
    Finish(Status(Code::kResourceExhausted, "message of " + std::to_string(incoming_.Length()) +
                                                " bytes; the limit of this method is " +
                                                std::to_string(StreamMethod::kMaxMessageBytes)));
  } else if (!incoming_.DumpToSingleSlice(&slice).ok()) {
    Finish(Status(Code::kInternal, "the message's bytes cannot be read"));
  } else {
    home_->handler->OnMessage(this, std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()));
  }
  EndIfOver();
}

void ServerStream::OnWritten(bool ok) {
  bool is_idle = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    --events_to_come_;
    if (!ok) {  // the client has gone
      waiting_.reset();
      if (!outcome_) outcome_ = Status(Code::kCancelled, "");
    }
    if (waiting_) {
      const std::string message = std::move(*waiting_);
      waiting_.reset();
      StartWrite(message);
    } else if (outcome_) {
      StartFinish();
    } else {
      is_idle = true;
    }
  }
  if (is_idle) home_->handler->OnSent(this);
  EndIfOver();
}

void ServerStream::OnFinished(bool) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    --events_to_come_;
  }
  EndIfOver();
}

void ServerStream::OnDone(bool) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    --events_to_come_;
    waiting_.reset();
  }
  Finish(Status(Code::kCancelled, ""));  // unless it was this server that ended it
  EndIfOver();
}

void ServerStream::EndIfOver() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (events_to_come_ > 0 || !finishing_) return;
    ended_ = true;
  }
  home_->handler->OnEnd(this);
  {
    std::lock_guard<std::mutex> lock(home_->mutex);
    home_->open.erase(this);
  }
  home_->counters->finished.fetch_add(1, std::memory_order_relaxed);
  responder_.reset();
  context_.reset();
  OpenSlots& open = home_->counters->open;
  Release();
  open.Remove();
}

}  // namespace tessera
