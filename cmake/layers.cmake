# What the targets are made of: warnings and sanitizers, one object library for each layer, the library, the command.
add_library(tp_flags INTERFACE)
target_include_directories(tp_flags INTERFACE
  $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>)
target_compile_options(tp_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wdouble-promotion
  -ffp-contract=off
  $<$<COMPILE_LANGUAGE:C>:-Wconversion -Wstrict-prototypes -Wmissing-prototypes>)
target_compile_definitions(tp_flags INTERFACE _GNU_SOURCE)
target_link_libraries(tp_flags INTERFACE OpenMP::OpenMP_C Threads::Threads m)
add_library(tp_sanitize INTERFACE)
if(TEMPER_SANITIZE)
  target_compile_options(tp_sanitize INTERFACE -fsanitize=${TEMPER_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(tp_sanitize INTERFACE -fsanitize=${TEMPER_SANITIZE})
  target_compile_definitions(tp_sanitize INTERFACE TP_SANITIZE)
endif()
target_link_libraries(tp_flags INTERFACE tp_sanitize)

set(TP_LAYERS "" CACHE INTERNAL "")

# tp_layer(name folder... DEPENDS dependency...): the object library tp_<name>_obj and, to link it together with
# every layer below it, the interface tp_<name>.
function(tp_layer name)
  cmake_parse_arguments(L "" "" "DEPENDS" ${ARGN})
  set(sources "")
  foreach(dir ${L_UNPARSED_ARGUMENTS})
    file(GLOB_RECURSE found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.c)
    list(APPEND sources ${found})
  endforeach()
  add_library(tp_${name}_obj OBJECT ${sources})
  target_link_libraries(tp_${name}_obj PUBLIC tp_flags)
  foreach(dep ${L_DEPENDS})
    target_link_libraries(tp_${name}_obj PUBLIC tp_dep_${dep})
  endforeach()
  set(TP_LAYERS ${TP_LAYERS} ${name} CACHE INTERNAL "")
  add_library(tp_${name} INTERFACE)
  foreach(layer ${TP_LAYERS})
    target_link_libraries(tp_${name} INTERFACE tp_${layer}_obj $<TARGET_OBJECTS:tp_${layer}_obj>)
  endforeach()
endfunction()

# libtemper: every layer in one shared library that exports only what include/temper declares.
function(tp_library)
  add_library(temper SHARED)
  foreach(layer ${TP_LAYERS})
    target_sources(temper PRIVATE $<TARGET_OBJECTS:tp_${layer}_obj>)
    target_link_libraries(temper PRIVATE $<BUILD_INTERFACE:tp_${layer}_obj>)
  endforeach()
  target_include_directories(temper PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_options(temper PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/exports.map)
  set_target_properties(temper PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/exports.map)
  set_target_properties(temper PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endfunction()

# temper: the command. It sees the public headers only.
function(tp_command)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/host/cli/*.c)
  add_executable(temper_cli ${sources})
  set_target_properties(temper_cli PROPERTIES OUTPUT_NAME temper INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  target_link_libraries(temper_cli PRIVATE tp_flags temper tp_dep_jansson)
endfunction()
