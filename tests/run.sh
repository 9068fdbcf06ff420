#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sets up what is missing, builds with GCC into build/ and with clang into build-clang/, and runs every test. The last
# line says how many tests passed and failed; the exit status is 0 only where some ran and none failed.
set -uo pipefail

usage() {
  cat <<'END'
Usage: tests/run.sh [--no-clang] [SUITE…]
  SUITE       headers, unit, numeric, gpu, parity, element, command, pipelines, demo, install, bench (default: all)
  --no-clang  leave the second compiler out
END
}

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
clang=yes
suites=()
for argument in "$@"; do
  case $argument in
    --no-clang) clang=no ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) suites+=(--suite "$argument") ;;
  esac
done

say() { printf '\033[1m%s\033[0m\n' "$*"; }
finish() { # PASSED FAILED SKIPPED
  echo "$1 passed, $2 failed$([ "$3" -eq 0 ] || echo ", $3 skipped")"
  [ "$1" -gt 0 ] && [ "$2" -eq 0 ]
  exit
}

say "Set-up"
pipelines/setup.sh --tests || finish 0 1 0
python=$(pipelines/setup.sh --tests --where)/bin/python

say "Build with GCC"
CC=gcc CXX=g++ pipelines/build.sh build -Dtests=enabled -Dgst=enabled -Dexamples=enabled || finish 0 1 0

clang_result=()
if [ $clang = yes ]; then
  say "Compile with clang"
  # Not run: it is there for its warnings, thread-safety analysis among them. Without precompiled headers it also
  # shows that each source includes what it uses.
  if CC=clang CXX=clang++ pipelines/build.sh build-clang -Doptimization=0 -Db_pch=false -Dtests=enabled -Dgst=enabled \
    -Dexamples=enabled; then
    clang_result=(passed "compiles with clang")
  else
    clang_result=(failed "compiles with clang")
  fi
fi

say "Tests"
rm -rf build/meson-logs/testlog.* build/parity-results
meson test -C build --no-rebuild --print-errorlogs "${suites[@]}"
if ls build/parity-results/parity-*.json >/dev/null 2>&1; then
  VLM_BUILD_DIR=build "$python" tests/parity/results.py
fi
read -r passed failed skipped < <("$python" tests/count.py build/meson-logs "${clang_result[@]}")
finish "${passed:-0}" "${failed:-1}" "${skipped:-0}"
