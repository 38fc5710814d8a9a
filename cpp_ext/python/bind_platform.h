// Models of other platforms, run by a Python callable.
#ifndef TESSERA_CPP_EXT_PYTHON_BIND_PLATFORM_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_PLATFORM_H_

#include "cpp_ext/python/bind_batching.h"

namespace tessera {

// Adds `Graph.foreign`.
void BindPlatform(GraphClass& graph);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_PLATFORM_H_
