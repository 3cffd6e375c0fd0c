# What is installed besides programs, and the Debian package that `cpack` (scripts/package) makes of it all.
install(FILES LICENSE DESTINATION share/doc/xdit-gen RENAME copyright)
install(FILES README.md DESTINATION share/doc/xdit-gen)
install(DIRECTORY configs DESTINATION share/xdit-gen)

# LibTorch is no Debian package: the list of wheels that a user fetches.
file(STRINGS third_party/requirements.txt wheels REGEX "^(torch|nvidia-)")
list(FILTER wheels EXCLUDE REGEX "frontend")  # headers
list(JOIN wheels "\n" wheels)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/libtorch.txt CONTENT "${wheels}\n" @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/libtorch.txt DESTINATION share/xdit-gen)

# The C and C++ libraries of the machine that builds are the oldest that are known to do.
foreach(library libc6 libgcc-s1 libstdc++6)
  execute_process(COMMAND dpkg-query -W -f=\${Version} ${library} OUTPUT_VARIABLE version ERROR_QUIET)
  string(REGEX MATCH "^[0-9]+\\.[0-9]+" version "${version}")
  if(version)
    list(APPEND depends "${library} (>= ${version})")
  endif()
endforeach()
list(JOIN depends ", " CPACK_DEBIAN_PACKAGE_DEPENDS)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "xdit-gen <xdit-gen@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "FLUX.1, SDXL and Stable Diffusion pictures on all GPUs of a machine")
set(CPACK_PACKAGE_DESCRIPTION "One executable turns prompts into pictures, with the same bytes on any number of GPUs.
LibTorch ${XDIT_TORCH_VERSION} is not part of the package:
pip install --target /usr/lib/xdit-gen-libtorch --no-deps -r /usr/share/xdit-gen/libtorch.txt")
set(CPACK_DEBIAN_PACKAGE_SECTION graphics)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE gzip)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/packaging/runpath.cmake)
include(CPack)
