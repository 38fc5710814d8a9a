# Finds the TensorFlow wheel whose C++ runtime `graph` and `ops` link. Never imports it (seconds, and half a GB).
# TESSERA_TF_DIR (CMake or environment) wins; then the interpreter's own site-packages, which under pip's build
# isolation is still the target environment.
if(NOT TESSERA_TF_DIR)
  set(TESSERA_TF_DIR $ENV{TESSERA_TF_DIR})
endif()
if(NOT TESSERA_TF_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import importlib.util, pathlib, sysconfig
spec = importlib.util.find_spec('tensorflow')
places = [pathlib.Path(spec.origin).parent] if spec and spec.origin else []
places += [pathlib.Path(sysconfig.get_path(key)) / 'tensorflow' for key in ('platlib', 'purelib')]
print(next((str(p) for p in places if (p / 'libtensorflow_cc.so.2').exists()), ''))"
    OUTPUT_VARIABLE TESSERA_TF_DIR OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
if(NOT EXISTS ${TESSERA_TF_DIR}/libtensorflow_cc.so.2)
  message(FATAL_ERROR "TensorFlow's C++ runtime was not found. Install tensorflow==2.21.* in the environment that builds "
                      "Tessera, or set TESSERA_TF_DIR to the folder that holds libtensorflow_cc.so.2.")
endif()
file(GLOB tf_dist_info ${TESSERA_TF_DIR}/../tensorflow-*.dist-info ${TESSERA_TF_DIR}/../tensorflow_cpu-*.dist-info)
string(REGEX MATCH "tensorflow(_cpu)?-([0-9.]+)\\.dist-info" _ "${tf_dist_info}")
set(TESSERA_TF_VERSION ${CMAKE_MATCH_2})
if(NOT TESSERA_TF_VERSION MATCHES "^2\\.21\\.")
  message(FATAL_ERROR "TensorFlow ${TESSERA_TF_VERSION} was found in ${TESSERA_TF_DIR}; Tessera needs 2.21.*, because it uses C++ APIs that change.")
endif()
message(STATUS "TensorFlow ${TESSERA_TF_VERSION} in ${TESSERA_TF_DIR}")

# The libraries are named by path because the wheel has no unversioned names; the modules find them at run time
# by SONAME (cpp_ext/load.py loads them first) or by RPATH.
add_library(tessera_tensorflow_framework INTERFACE)
target_include_directories(tessera_tensorflow_framework SYSTEM INTERFACE ${TESSERA_TF_DIR}/include)
target_compile_definitions(tessera_tensorflow_framework INTERFACE NDEBUG _GLIBCXX_USE_CXX11_ABI=1
                                                                  EIGEN_MAX_ALIGN_BYTES=64)
target_link_libraries(tessera_tensorflow_framework INTERFACE ${TESSERA_TF_DIR}/libtensorflow_framework.so.2)

# libtensorflow_cc registers its kernels and sessions when it is loaded; no symbol of ours would keep it linked.
add_library(tessera_tensorflow INTERFACE)
target_link_libraries(tessera_tensorflow INTERFACE -Wl,--no-as-needed ${TESSERA_TF_DIR}/libtensorflow_cc.so.2
                                                   -Wl,--as-needed tessera_tensorflow_framework)
