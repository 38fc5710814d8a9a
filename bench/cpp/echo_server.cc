// The baseline of `tiny_vs_echo`: a bare gRPC server that sends back what it gets, one thread, one completion queue.
//
// It uses the same static gRPC as `_rpc` and nothing else of Tessera, so it bounds what any server on this gRPC can
// reach. Usage: echo_server [--port P] [--method /package.Service/Method]; prints the port, serves until killed.
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

namespace {

class EchoService final : public grpc::Service {
 public:
  explicit EchoService(const char* method) {
    AddMethod(new grpc::internal::RpcServiceMethod(method, grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRaw(0);
  }
  void Request(grpc::ServerContext* context, grpc::ByteBuffer* request,
               grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* responder, grpc::ServerCompletionQueue* queue,
               void* tag) {
    RequestAsyncUnary(0, context, request, responder, queue, queue, tag);
  }
};

struct Call {
  Call(EchoService* service, grpc::ServerCompletionQueue* queue) : responder(&context) {
    service->Request(&context, &request, &responder, queue, this);
  }
  grpc::ServerContext context;
  grpc::ByteBuffer request;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> responder;
  bool answered = false;
};

}  // namespace

int main(int argc, char** argv) {
  int port = 0;
  std::string method = "/tensorflow.serving.PredictionService/Predict";
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--port") == 0) port = std::stoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--method") == 0) method = argv[i + 1];
  }
  EchoService service(method.c_str());
  grpc::ServerBuilder builder;
  int bound_port = 0;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(), &bound_port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.RegisterService(&service);
  const auto queue = builder.AddCompletionQueue();
  const auto server = builder.BuildAndStart();
  if (server == nullptr || bound_port == 0) {
    std::fprintf(stderr, "echo_server: port %d cannot be bound\n", port);
    return 1;
  }
  std::printf("%d\n", bound_port);
  std::fflush(stdout);
  for (int i = 0; i < 4; ++i) new Call(&service, queue.get());
  void* tag;
  bool ok;
  while (queue->Next(&tag, &ok)) {
    auto* call = static_cast<Call*>(tag);
    if (call->answered || !ok) {
      delete call;
      continue;
    }
    new Call(&service, queue.get());
    call->answered = true;
    call->responder.Finish(call->request, grpc::Status::OK, call);
  }
  return 0;
}
