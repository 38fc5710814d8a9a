# `_graph`: graphs and Predict for Python, with TensorFlow's C++ runtime. Included by this folder's CMakeLists.txt.
pybind11_add_module(_graph MODULE ${CMAKE_CURRENT_LIST_DIR}/module_graph.cc ${CMAKE_CURRENT_LIST_DIR}/bind_graph.cc
                                  ${CMAKE_CURRENT_LIST_DIR}/bind_batching.cc ${CMAKE_CURRENT_LIST_DIR}/bind_predictor.cc
                                  ${CMAKE_CURRENT_LIST_DIR}/bind_profiler.cc
                                  ${CMAKE_CURRENT_LIST_DIR}/bind_traffic.cc ${CMAKE_CURRENT_LIST_DIR}/numpy_tensor.cc)
target_sources(_graph PRIVATE ${CMAKE_CURRENT_LIST_DIR}/bind_rest.cc)
target_sources(_graph PRIVATE ${CMAKE_CURRENT_LIST_DIR}/bind_platform.cc)
target_compile_definitions(_graph PRIVATE TESSERA_VERSION="${PROJECT_VERSION}" TESSERA_TF_VERSION="${TESSERA_TF_VERSION}")
target_link_libraries(_graph PRIVATE tessera_graph)
target_link_options(_graph PRIVATE -Wl,--exclude-libs,ALL)
set_target_properties(_graph PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../tensorflow")
install(TARGETS _graph LIBRARY DESTINATION cpp_ext)
