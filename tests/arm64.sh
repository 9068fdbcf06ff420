#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compiles every source of the engine for 64-bit Arm, and runs the kernels' tests there in an emulator. For releases; no
# part of tests/run.sh. Needs g++-aarch64-linux-gnu, qemu-user-static, libgtest-dev and nlohmann-json3-dev; on two cores
# it takes some ten minutes. DIR is libtorch for Arm, which a wheel unpacked has (its version is yours):
#
#     pip download --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 -d WHEELS torch==2.11.0
#     python3 -m zipfile -e WHEELS/torch-*.whl TREE
#     tests/arm64.sh TREE/torch [LIBRARIES…]
#
# LIBRARIES are directories of what its libraries want beside themselves, such as a CUDA build's cudart and cupti.
set -eu

torch=$(readlink -f "${1:?usage: arm64.sh DIR [LIBRARIES…], DIR being libtorch for 64-bit Arm}")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
out=${ARM64_OUT:-$root/build-arm64}
gtest=/usr/src/googletest/googletest
mkdir -p "$out"
# The machine's own headers come last, for those that are the same everywhere.
flags="-std=c++20 -O1 -fPIC -fopenmp -Wall -Wextra -Wno-missing-field-initializers -Wno-psabi -Werror -DAT_PER_OPERATOR_HEADERS
  -DVLM_VERSION=\"0\" -Iengine -Iengine/include -Itests -isystem $torch/include
  -isystem $torch/include/torch/csrc/api/include -isystem $gtest/include -idirafter /usr/include"
export flags out

compile() { # FILE… from the root, those that are older than their objects left out
  printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} sh -c '
    object=$out/$(echo {} | tr / _).o
    [ "$object" -nt {} ] || aarch64-linux-gnu-g++ $flags -c {} -o "$object"'
}
# shellcheck disable=SC2046 # names of sources
compile $(find engine -name '*.cpp')
echo "compiled $(find engine -name '*.cpp' | wc -l) sources"

tests="convert cpu_limit cpu_step dense fused linear matvec packed_matrix paged_attention product random team whole_attention"
aarch64-linux-gnu-g++ -std=c++20 -O1 -I$gtest -I$gtest/include -c $gtest/src/gtest-all.cc -o "$out/gtest-all.o"
aarch64-linux-gnu-g++ -std=c++20 -O1 -I$gtest -I$gtest/include -c $gtest/src/gtest_main.cc -o "$out/gtest_main.o"
# shellcheck disable=SC2086 # names of tests
compile $(printf 'tests/numeric/%s_test.cpp ' $tests)
libraries=$torch/lib:$(IFS=: && echo "$*"):/usr/aarch64-linux-gnu/lib
failed=
for name in $tests; do
  aarch64-linux-gnu-g++ -fopenmp "$out/tests_numeric_${name}_test.cpp.o" "$out"/engine_*.o "$out"/gtest*.o \
    -L"$torch/lib" -lc10 -ltorch_cpu -ldl -Wl,--allow-shlib-undefined -o "$out/test_$name"
  echo "$name:"
  OMP_NUM_THREADS=1 qemu-aarch64-static -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$libraries" \
    "$out/test_$name" --gtest_brief=1 || failed="$failed $name"
done
echo "failed:${failed:- none}"
[ -z "$failed" ]
