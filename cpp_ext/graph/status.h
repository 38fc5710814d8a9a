// What a client gets to see of an error of TensorFlow.
#ifndef TESSERA_CPP_EXT_GRAPH_STATUS_H_
#define TESSERA_CPP_EXT_GRAPH_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Keeps the code and the message with the node that failed; drops payloads,
// further nodes that the error passed through, and the Python stack of whoever
// built the graph.
inline absl::Status CleanStatus(const absl::Status& status) {
  absl::string_view text = status.message();
  text = text.substr(0, text.find("\n\nOriginal stack trace"));
  text = text.substr(0, text.find("\n\nStack trace"));
  const size_t node = text.find("\n\t [[{{node");
  if (node != absl::string_view::npos) {
    const size_t end = text.find('\n', node + 1);
    text = text.substr(0, end);
  }
  return absl::Status(status.code(), text);
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_STATUS_H_
