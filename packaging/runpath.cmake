# Of the rank library in a package: LibTorch in /usr/lib/xdit-gen-libtorch, not where the building machine has it.
set(torch $ORIGIN/xdit-gen-libtorch)
file(GLOB_RECURSE library ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/libxdit-rank.so)
file(RPATH_SET FILE ${library} NEW_RPATH
     "$ORIGIN:${torch}/torch/lib:${torch}/nvidia/cu13/lib:${torch}/nvidia/cudnn/lib:${torch}/nvidia/nccl/lib")
