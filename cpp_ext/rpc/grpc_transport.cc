#include "cpp_ext/rpc/grpc_transport.h"

#include <grpc/support/time.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/rpc_method.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>

#include <utility>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {
namespace {

// A moved string as a slice: large requests are not copied.
grpc::ByteBuffer ToByteBuffer(std::string message) {
  auto* const owned = new std::string(std::move(message));
  const grpc::Slice slice(
      owned->data(), owned->size(), [](void* arg) { delete static_cast<std::string*>(arg); }, owned);
  return grpc::ByteBuffer(&slice, 1);
}

class GrpcCall final : public Tag, public TransportCall {
 public:
  // Keeps itself until Run.
  static std::shared_ptr<GrpcCall> Start(grpc::Channel* channel, const grpc::internal::RpcMethod& method,
                                         grpc::CompletionQueue* queue, std::string request, int64_t deadline_ns,
                                         Transport::Done done) {
    auto call = std::make_shared<GrpcCall>();
    call->done_ = std::move(done);
    if (deadline_ns != TESSERA_NO_DEADLINE) {
      call->context_.set_deadline(gpr_time_from_nanos_monotonic(deadline_ns));
    }
    // The request's bytes are serialized here, that is, referenced: it need not live longer.
    call->reader_.reset(grpc::internal::ClientAsyncResponseReaderHelper::Create<grpc::ByteBuffer>(
        channel, queue, method, &call->context_, ToByteBuffer(std::move(request))));
    call->reader_->StartCall();
    call->self_ = call;
    call->reader_->Finish(&call->response_, &call->status_, call.get());
    return call;
  }

  void Cancel() override { context_.TryCancel(); }

  void Run(bool ok) override {
    Pollers::EndAwaiting();
    const std::shared_ptr<GrpcCall> self = std::move(self_);
    const Transport::Done done = std::move(done_);
    if (!status_.ok()) {
      if (context_.GetServerTrailingMetadata().count(kPushBackKey) > 0) return Overloaded(done);
      return done(Status(static_cast<Code>(status_.error_code()), status_.error_message()), nullptr, 0);
    }
    grpc::Slice slice;
    grpc::Status taken = response_.TrySingleSlice(&slice);
    if (!taken.ok()) taken = response_.DumpToSingleSlice(&slice);
    if (!taken.ok()) return done(Status(Code::kInternal, "the response cannot be read"), nullptr, 0);
    done(Status(), slice.begin(), slice.size());
  }

 private:
  // A server refuses for load before it has read the request, hence with a status; here it becomes the refusal that it
  // means, so that it is told from a message that is too large.
  void Overloaded(const Transport::Done& done) const {
    const std::string message = status_.error_message();
    Refusal refusal;
    refusal.kind = RefusalKind::kOverloaded;
    refusal.message = message;
    const std::string response = BuildRefusal(refusal);
    done(Status(), reinterpret_cast<const uint8_t*>(response.data()), response.size());
  }

  static gpr_timespec gpr_time_from_nanos_monotonic(int64_t ns) {
    gpr_timespec time = gpr_time_from_nanos(ns, GPR_TIMESPAN);
    time.clock_type = GPR_CLOCK_MONOTONIC;
    return time;
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  grpc::ByteBuffer response_;
  grpc::Status status_;
  Transport::Done done_;
  std::shared_ptr<GrpcCall> self_;
};

class GrpcTransport final : public Transport {
 public:
  GrpcTransport(const std::string& address, const GrpcTransportOptions& options, Pollers* pollers)
      : channel_(Connect(address, options)),
        method_(kLookupMethod, /*suffix_for_stats=*/nullptr, grpc::internal::RpcMethod::NORMAL_RPC, channel_),
        pollers_(pollers) {}

  std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) override {
    return GrpcCall::Start(channel_.get(), method_, pollers_->BeginAwaiting(), std::move(request), deadline_ns,
                           std::move(done));
  }

 private:
  static std::shared_ptr<grpc::Channel> Connect(const std::string& address, const GrpcTransportOptions& options) {
    grpc::ChannelArguments arguments;
    const int max_message_bytes = static_cast<int>(options.max_message_bytes);
    arguments.SetMaxReceiveMessageSize(max_message_bytes);
    arguments.SetMaxSendMessageSize(max_message_bytes);
    // Rows do not compress; without these filters a call is cheaper.
    arguments.SetInt(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    // Replicas are asked by the fan-out; gRPC must not ask the same server again.
    arguments.SetInt("grpc.enable_retries", 0);
    // A machine that vanished closes nothing: pings notice it, also while nothing is in flight.
    arguments.SetInt("grpc.keepalive_time_ms", 2000);
    arguments.SetInt("grpc.keepalive_timeout_ms", 1000);
    arguments.SetInt("grpc.http2.ping_timeout_ms", 1000);
    arguments.SetInt("grpc.keepalive_permit_without_calls", 1);
    arguments.SetInt("grpc.http2.max_pings_without_data", 0);
    // A restarted server is found again soon.
    arguments.SetInt("grpc.initial_reconnect_backoff_ms", 100);
    // Not a pause: the least time that an attempt may take. A machine that is busy answers late.
    arguments.SetInt("grpc.min_reconnect_backoff_ms", 1000);
    arguments.SetInt("grpc.max_reconnect_backoff_ms", 2000);
    // Names are resolved by ourselves if at all; no service config, no proxy of the environment.
    arguments.SetInt("grpc.service_config_disable_resolution", 1);
    arguments.SetInt("grpc.enable_http_proxy", 0);
    auto channel = grpc::CreateCustomChannel(address, options.credentials, arguments);
    channel->GetState(/*try_to_connect=*/true);
    return channel;
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const grpc::internal::RpcMethod method_;
  Pollers* const pollers_;
};

}  // namespace

std::shared_ptr<Transport> MakeGrpcTransport(const std::string& address, const GrpcTransportOptions& options,
                                             Pollers* pollers) {
  return std::make_shared<GrpcTransport>(address, options, pollers);
}

}  // namespace tessera
