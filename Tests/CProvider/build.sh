#!/bin/sh
# Builds the provider from the two headers and nothing else: build.sh OUTPUT.so [COMPILER FLAG...]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
output=$1
shift
exec "${CC:-cc}" -std=c11 -O2 -g -Wall -Wextra -Wpedantic -Werror -fPIC -shared -fvisibility=hidden \
	-Wl,--no-undefined -I "$here/../../Sources/CProviderABI/include" ${CFLAGS:-} "$@" -o "$output" "$here"/*.c
