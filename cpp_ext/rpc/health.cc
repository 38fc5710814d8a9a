#include "cpp_ext/rpc/health.h"

#include <protozero/pbf_reader.hpp>
#include <utility>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {
namespace {

constexpr size_t kMaxServiceNameBytes = 1024;

// HealthCheckRequest{string service = 1}
Status ParseRequest(std::string_view message, std::string* service) {
  try {
    protozero::pbf_reader reader(message.data(), message.size());
    while (reader.next()) {
      if (reader.tag() == 1 && reader.wire_type() == protozero::pbf_wire_type::length_delimited) {
        *service = reader.get_string();
      } else {
        reader.skip();
      }
    }
  } catch (const protozero::exception&) {
    return Status(Code::kInvalidArgument, "HealthCheckRequest: cannot be parsed");
  }
  if (service->size() <= kMaxServiceNameBytes) return Status();
  return Status(Code::kInvalidArgument, "service: got a name of " + std::to_string(service->size()) +
                                            " bytes, expected at most " + std::to_string(kMaxServiceNameBytes));
}

// HealthCheckResponse{ServingStatus status = 1}
std::string Response(HealthService::Serving status) { return {'\x08', static_cast<char>(status)}; }

void Answer(const TesseraCallApi* api, TesseraCall* call, const Status& status, const std::string& response) {
  api->finish(call, static_cast<int>(status.code()), status.message().data(), status.message().size(),
              reinterpret_cast<const uint8_t*>(response.data()), response.size(), nullptr, nullptr);
}

}  // namespace

HealthService::HealthService()
    : check_{TESSERA_ABI_VERSION, this,
             [](void* context, const TesseraCallApi* api, TesseraCall* call) {
               static_cast<const HealthService*>(context)->Check(api, call);
             },
             nullptr} {}

void HealthService::Set(const std::string& service, Serving status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!draining_) SetOne(service, status);
}

void HealthService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  std::vector<std::string> services;
  for (const auto& [service, status] : statuses_) services.push_back(service);
  for (const std::string& service : services) SetOne(service, Serving::kNotServing);
}

void HealthService::SetOne(const std::string& service, Serving status) {
  const auto [entry, is_new] = statuses_.try_emplace(service, status);
  if (!is_new && std::exchange(entry->second, status) == status) return;
  for (const auto& [stream, watcher] : watchers_) {
    if (watcher.service == service) watcher.stream->Send(Response(status));
  }
}

HealthService::Serving HealthService::StatusOf(const std::string& service) const {
  const auto found = statuses_.find(service);
  return found == statuses_.end() ? Serving::kServiceUnknown : found->second;
}

void HealthService::Check(const TesseraCallApi* api, TesseraCall* call) const {
  size_t size;
  const uint8_t* bytes = api->request(call, &size);
  std::string service;
  if (Status status = ParseRequest({reinterpret_cast<const char*>(bytes), size}, &service); !status.ok()) {
    return Answer(api, call, status, "");
  }
  Serving serving;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    serving = StatusOf(service);
  }
  if (serving == Serving::kServiceUnknown) {
    return Answer(api, call, Status(Code::kNotFound, "service: \"" + service + "\" is not known here"), "");
  }
  Answer(api, call, Status(), Response(serving));
}

void HealthService::OnMessage(ServerStream* stream, std::string_view message) {
  std::string service;
  if (Status status = ParseRequest(message, &service); !status.ok()) return stream->Finish(status);
  std::lock_guard<std::mutex> lock(mutex_);  // what changes from here on is sent after this
  stream->Send(Response(StatusOf(service)));
  watchers_.emplace(stream, Watcher{Ref<ServerStream>::Share(stream), std::move(service)});
}

void HealthService::OnHalfClose(ServerStream* stream) {
  stream->Finish(Status(Code::kInvalidArgument, "Watch: expected a HealthCheckRequest, got none"));
}

void HealthService::OnEnd(ServerStream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  watchers_.erase(stream);
}

}  // namespace tessera
