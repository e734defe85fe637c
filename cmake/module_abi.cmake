# The number by which libtemper and libtemper_cuda.so know that they are of one version: a hash of the headers that both
# see the same data through. A change of one of them, or a new one, is another number.
file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/include/temper/*.h ${CMAKE_SOURCE_DIR}/host/graph/*.h
  ${CMAKE_SOURCE_DIR}/kernels/op.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${headers})
set(hashes "")
foreach(header ${headers})
  file(SHA256 ${header} hash)
  string(APPEND hashes ${hash})
endforeach()
string(SHA256 hash "${hashes}")
string(SUBSTRING ${hash} 0 16 hash)
set(TP_MODULE_ABI_SOURCE ${CMAKE_BINARY_DIR}/cuda_module_abi.c)
file(CONFIGURE OUTPUT ${TP_MODULE_ABI_SOURCE} @ONLY CONTENT
  "#include \"host/graph/cuda_module.h\"\nconst uint64_t tp_cuda_module_abi = 0x@hash@;\n")
target_sources(tp_engine_obj PRIVATE ${TP_MODULE_ABI_SOURCE})
list(APPEND TP_CUDA_C_SOURCES ${TP_MODULE_ABI_SOURCE})
