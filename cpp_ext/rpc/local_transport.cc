#include "cpp_ext/rpc/local_transport.h"

#include <cstdlib>
#include <utility>

#include "cpp_ext/table/table_store.h"

namespace tessera {
namespace {

class LocalTransport final : public Transport {
 public:
  LocalTransport(std::shared_ptr<TableStore> store, size_t max_message_bytes)
      : store_(std::move(store)), max_message_bytes_(max_message_bytes) {}

  std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) override {
    uint8_t* response = nullptr;
    size_t response_bytes = 0;
    Status status = store_->Lookup(reinterpret_cast<const uint8_t*>(request.data()), request.size(), max_message_bytes_,
                                   &response, &response_bytes);
    done(std::move(status), response, response_bytes);
    free(response);
    return nullptr;
  }

 private:
  const std::shared_ptr<TableStore> store_;
  const size_t max_message_bytes_;
};

}  // namespace

std::shared_ptr<Transport> MakeLocalTransport(std::shared_ptr<TableStore> store, size_t max_message_bytes) {
  return std::make_shared<LocalTransport>(std::move(store), max_message_bytes);
}

}  // namespace tessera
