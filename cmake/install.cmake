# cmake --install: the library, its headers and the command, and how others find them: pkg-config and find_package.
# Every path in the installed files is relative to where they lie, so the tree can be moved.
include(CMakePackageConfigHelpers)

install(TARGETS temper EXPORT temper)
install(TARGETS temper_cli)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/temper DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(TP_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/temper)
install(EXPORT temper NAMESPACE temper:: FILE temper-config.cmake DESTINATION ${TP_PACKAGE_DIR})
# Below version 1 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/temper-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/temper-config-version.cmake DESTINATION ${TP_PACKAGE_DIR})

file(RELATIVE_PATH TP_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/temper.pc.in temper.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/temper.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
