# Every library Temper links, found in one place, each as an interface target tp_dep_<name>.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)

function(tp_dep_pkg name module)
  pkg_check_modules(TP_${name} REQUIRED IMPORTED_TARGET ${module})
  add_library(tp_dep_${name} INTERFACE)
  target_link_libraries(tp_dep_${name} INTERFACE PkgConfig::TP_${name})
endfunction()

tp_dep_pkg(deflate libdeflate)
tp_dep_pkg(fyaml libfyaml)
tp_dep_pkg(jansson jansson)
tp_dep_pkg(sodium libsodium)
tp_dep_pkg(seccomp libseccomp)
tp_dep_pkg(hdf5 hdf5)

find_library(TP_DNNL_LIBRARY dnnl REQUIRED)
add_library(tp_dep_dnnl INTERFACE)
target_link_libraries(tp_dep_dnnl INTERFACE ${TP_DNNL_LIBRARY})
