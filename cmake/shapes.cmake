# Puts the shapes of the shipped models into the benchmark layer, so that the installed command has them too. Written as
# numbers, since C promises only short string literals.
set(texts "")
set(entries "")
foreach(name chicago fashion-cnn movielens)
  set(file ${CMAKE_SOURCE_DIR}/benchmarks/shapes/${name}.txt)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(MAKE_C_IDENTIFIER ${name} id)
  string(APPEND texts "static const char ${id}[] = {${bytes} 0};\n")
  string(APPEND entries "{\"${name}\", ${id}}, ")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/shipped_shapes.c @ONLY CONTENT
  "#include \"host/bench/bench.h\"\n@texts@const bench_shipped bench_shipped_files[] = {@entries@{NULL, NULL}};\n")
target_sources(tp_bench_obj PRIVATE ${CMAKE_BINARY_DIR}/shipped_shapes.c)
