#!/usr/bin/env bash
# Install the extra `kquants` with only what quantising needs: one minute of compiling in place of five and more.
# With WHEELS, a folder, it is only built, as a wheel there.
set -euo pipefail

"$VENV/bin/python" -c 'import llama_cpp' 2>/dev/null && exit
options=(
    -DLLAMA_BUILD_{COMMON,TESTS,TOOLS,EXAMPLES,SERVER,APP}=OFF -DLLAMA_OPENSSL=OFF
    -DGGML_CPU=OFF -DGGML_OPENMP=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_C_FLAGS_RELEASE=-O1
    -DCMAKE_INSTALL_LIBDIR=llama_cpp/lib "-DCMAKE_INSTALL_RPATH=\$ORIGIN"
)
command=(install)
[[ -z ${WHEELS:-} ]] || command=(wheel --no-deps --wheel-dir "$WHEELS")
build() {
    SKBUILD_CMAKE_SOURCE_DIR=vendor/llama.cpp CMAKE_ARGS="${options[*]} $*" \
        "$VENV/bin/python" -m pip "${command[@]}" --quiet "llama-cpp-python>=0.3.36,<0.4"
}
# A version whose files cannot be joined is compiled as it is.
build "-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=$PWD/tools/kquants.cmake" || build
