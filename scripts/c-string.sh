#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# c-string.sh - a text file as C string literals, a line each, on standard output. usage: scripts/c-string.sh FILE
exec sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' "$1"
