// Answers one lookup from one snapshot.
//
// Thread-safety: a pure function of its arguments.
#ifndef TESSERA_CPP_EXT_TABLE_ANSWER_H_
#define TESSERA_CPP_EXT_TABLE_ANSWER_H_

#include <cstddef>
#include <cstdint>

#include "cpp_ext/base/status.h"
#include "cpp_ext/table/lookup_message.h"
#include "cpp_ext/table/table_snapshot.h"

namespace tessera {

struct Answer {
  // A serialized LookupResponse, to be freed with free(); null if the lookup failed.
  uint8_t* message = nullptr;
  size_t message_bytes = 0;
  // What the message has, for counting.
  bool refused = false;
  RefusalKind refusal = RefusalKind::kUnspecified;
  size_t rows = 0;
  size_t rows_bytes = 0;
};

// TableStore::Lookup describes request, response, errors and cost.
Status AnswerLookup(const TableSnapshot& snapshot, const uint8_t* request, size_t request_bytes,
                    size_t max_response_bytes, Answer* answer);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_ANSWER_H_
