#!/bin/sh
# Builds the provider from the installed headers and nothing else: build.sh OUTPUT.so [COMPILER FLAG...]
# CPPFLAGS=-I… names the directory of <rdma_provider.h> where that is not installed in the system.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
output=$1
shift
exec "${CC:-cc}" -std=c11 -D_DEFAULT_SOURCE -O2 -g -Wall -Wextra -Wpedantic -Werror -fPIC -shared -fvisibility=hidden \
	-Wl,--no-undefined ${CPPFLAGS:-} ${CFLAGS:-} "$@" -o "$output" "$here"/*.c
