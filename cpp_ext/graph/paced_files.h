// Files that are read in small pieces.
//
// TensorFlow restores a variable with one read of all its bytes. Inside that system call a kernel without forced
// preemption lets nobody else have the core, whatever the priority of the thread: for 128 MiB of fresh memory that was
// half a second during which the requests of other models waited. Between pieces any thread that wants the core gets
// it.
#ifndef TESSERA_CPP_EXT_GRAPH_PACED_FILES_H_
#define TESSERA_CPP_EXT_GRAPH_PACED_FILES_H_

#include <string>

#include "absl/status/status.h"

namespace tessera {

// The local path as TensorFlow must be given it so that it reads in pieces. Thread-safe.
std::string PacedPath(const std::string& path);

// With paths as the user knows them in the message.
absl::Status WithoutPacedPaths(const absl::Status& status);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PACED_FILES_H_
