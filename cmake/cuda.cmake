# libtemper_cuda.so: the GPU as one module, opened at run time. Built twice from the same .cu files: by nvcc where there is
# one, and for the tests as plain C++ against the emulated runtime of tests/emu, everywhere.
set(TEMPER_CUDA_ARCHITECTURES "80-real;90;100-real" CACHE STRING "GPU architectures (CMake's CUDA_ARCHITECTURES) of the module")
file(GLOB_RECURSE TP_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*.cu ${CMAKE_SOURCE_DIR}/host/graph/*.cu)
# What of the engine the module carries itself: it links nothing of libtemper.
set(TP_CUDA_C_SOURCES ${CMAKE_SOURCE_DIR}/host/core/tensor.c ${CMAKE_SOURCE_DIR}/kernels/op.c)

# tp_cuda_module(target source...)
function(tp_cuda_module target)
  add_library(${target} MODULE ${ARGN} ${TP_CUDA_C_SOURCES})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  target_link_options(${target} PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/module_exports.map)
  if(NOT TEMPER_SANITIZE) # clang's sanitizers are linked into the program alone
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()
  set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden
    LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/module_exports.map)
endfunction()

# The module for a GPU, if nvcc is there. enable_language works at file scope only.
find_program(TEMPER_NVCC nvcc HINTS /usr/local/cuda/bin $ENV{CUDA_HOME}/bin)
if(TEMPER_NVCC)
  execute_process(COMMAND ${TEMPER_NVCC} --version OUTPUT_VARIABLE tp_nvcc_text ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+)[.0-9]*" tp_nvcc_release "${tp_nvcc_text}")
  if(NOT CMAKE_MATCH_1 STREQUAL "13")
    message(STATUS "${TEMPER_NVCC} is of CUDA '${tp_nvcc_release}', and 13 is wanted: libtemper_cuda.so is not built")
    set(TEMPER_NVCC FALSE) # from here on; the cache keeps what was found
  endif()
else()
  message(STATUS "no nvcc: libtemper_cuda.so is not built")
endif()
if(TEMPER_NVCC)
  set(CMAKE_CUDA_COMPILER ${TEMPER_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${TEMPER_CUDA_ARCHITECTURES})
  enable_language(CUDA)
endif()

function(tp_cuda_library)
  tp_cuda_module(temper_cuda ${TP_CUDA_SOURCES})
  set_target_properties(temper_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_STANDARD 17)
  target_compile_options(temper_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Xcompiler=-Wall,-Wextra>)
  install(TARGETS temper_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

# The module for the tests: CUDA threads are fibers of one thread (tests/emu/cuda_emu.h). Call it from the folder of the
# tests: what the sources are compiled as is a property of the folder.
function(tp_cuda_emulated target)
  tp_cuda_module(${target} ${TP_CUDA_SOURCES} ${CMAKE_SOURCE_DIR}/tests/emu/emu.cc
    ${CMAKE_SOURCE_DIR}/tests/emu/libraries_emu.cc)
  set_source_files_properties(${TP_CUDA_SOURCES} PROPERTIES LANGUAGE CXX
    COMPILE_OPTIONS "-xc++;-include;${CMAKE_SOURCE_DIR}/tests/emu/libraries_emu.h")
  target_link_libraries(${target} PRIVATE tp_sanitize)
  target_compile_definitions(${target} PRIVATE TP_PIECE_LIMIT=500)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wno-unknown-pragmas -ffp-contract=off)
  if(TEMPER_SANITIZE STREQUAL "thread") # it plays the threads of a GPU, and is none of them
    set_source_files_properties(${CMAKE_SOURCE_DIR}/tests/emu/emu.cc PROPERTIES COMPILE_OPTIONS
      "-fno-sanitize=thread;-DEMU_TSAN")
  endif()
endfunction()
