// Serves a TableStore to whoever makes calls through abi.h.
//
// Thread-safety: immutable.
#ifndef TESSERA_CPP_EXT_TABLE_TABLE_HANDLER_H_
#define TESSERA_CPP_EXT_TABLE_TABLE_HANDLER_H_

#include <cstddef>
#include <memory>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/table/table_store.h"

namespace tessera {

class TableHandler {
 public:
  // Responses above `max_response_bytes` end their call with RESOURCE_EXHAUSTED. Keeps the store alive.
  TableHandler(std::shared_ptr<TableStore> store, size_t max_response_bytes);
  TableHandler(const TableHandler&) = delete;
  TableHandler& operator=(const TableHandler&) = delete;

  // Answers the method Lookup. Valid as long as this object.
  const TesseraHandler* handler() const { return &handler_; }

 private:
  static void Handle(void* context, const TesseraCallApi* api, TesseraCall* call);

  const std::shared_ptr<TableStore> store_;
  const size_t max_response_bytes_;
  const TesseraHandler handler_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_TABLE_HANDLER_H_
