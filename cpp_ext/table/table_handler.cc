#include "cpp_ext/table/table_handler.h"

#include <cstdlib>
#include <utility>

namespace tessera {

TableHandler::TableHandler(std::shared_ptr<TableStore> store, size_t max_response_bytes)
    : store_(std::move(store)),
      max_response_bytes_(max_response_bytes),
      handler_{TESSERA_ABI_VERSION, this, &TableHandler::Handle, nullptr} {}

void TableHandler::Handle(void* context, const TesseraCallApi* api, TesseraCall* call) {
  const TableHandler* self = static_cast<const TableHandler*>(context);
  size_t request_bytes = 0;
  const uint8_t* request = api->request(call, &request_bytes);
  uint8_t* response = nullptr;
  size_t response_bytes = 0;
  const Status status =
      self->store_->Lookup(request, request_bytes, self->max_response_bytes_, &response, &response_bytes);
  const std::string& message = status.message();
  api->finish(call, static_cast<int>(status.code()), message.data(), message.size(), response, response_bytes,
              status.ok() ? &std::free : nullptr, response);
}

}  // namespace tessera
