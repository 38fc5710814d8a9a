# JSON of the REST API: no TensorFlow, so that it builds and is tested without it. Included by the folder above.
find_path(PROTOZERO_INCLUDE_DIR protozero/pbf_reader.hpp REQUIRED)
find_path(RAPIDJSON_INCLUDE_DIR rapidjson/document.h REQUIRED)
set(json_folder ${CMAKE_CURRENT_LIST_DIR})
add_library(tessera_json STATIC ${json_folder}/json_base64.cc ${json_folder}/json_decode.cc ${json_folder}/json_encode.cc
                                ${json_folder}/json_example.cc ${json_folder}/json_signature.cc ${json_folder}/json_tensor.cc
                                ${json_folder}/json_value.cc ${json_folder}/json_values.cc ${json_folder}/rest_pool.cc
                                ${json_folder}/rest_cost.cc)
target_include_directories(tessera_json SYSTEM PUBLIC ${PROTOZERO_INCLUDE_DIR} ${RAPIDJSON_INCLUDE_DIR})
target_link_libraries(tessera_json PUBLIC tessera_base Threads::Threads)
