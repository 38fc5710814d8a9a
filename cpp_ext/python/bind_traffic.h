#ifndef TESSERA_CPP_EXT_PYTHON_BIND_TRAFFIC_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_TRAFFIC_H_

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "cpp_ext/graph/answer_hook.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {

// Adds `TrafficSplit` and the hooks that look at answers to `module`; before the classes that take them.
void BindTraffic(pybind11::module_& module);
// Adds `Shadow`; after Predictor.
void BindShadow(pybind11::module_& module);

// One hook that calls all of `hooks` in their order; null if there are none.
std::shared_ptr<AnswerHook> JoinHooks(std::vector<std::shared_ptr<AnswerHook>> hooks);

// Returns model → share → {"chosen", "rerouted"} for models with a split.
pybind11::dict TrafficStats(const Snapshot& snapshot);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_TRAFFIC_H_
