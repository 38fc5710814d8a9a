// Runs a signature and waits: for verification and notebooks.
#ifndef TESSERA_CPP_EXT_GRAPH_RUN_H_
#define TESSERA_CPP_EXT_GRAPH_RUN_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {

using NamedTensors = std::map<std::string, tensorflow::Tensor>;

// Blocks until the step has ended; at `timeout` it is cancelled and
// DEADLINE_EXCEEDED returned once it has ended. Codes and texts for wrong
// aliases and dtypes are Predict's.
absl::StatusOr<NamedTensors> RunAndWait(std::shared_ptr<const ServedVersion> version, const std::string& signature,
                                        const NamedTensors& inputs, absl::Duration timeout);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_RUN_H_
