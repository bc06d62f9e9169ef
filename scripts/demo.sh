#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh - a Debian image from packages, and one command in it as a microVM. usage: scripts/demo.sh BUILDDIR
#
# Everything is kept where husk keeps it (HUSK_HOME or its default) and in the user's cache, so a second run only boots.
set -eu
cd "$(dirname "$0")/.."
husk=$PWD/$1/cli/husk
image='husk-demo/debian:bookworm'

step() { printf '\n==> %s\n' "$*"; }

step "what this machine can do: husk doctor"
"$husk" doctor || true

step "guest kernel: husk kernel fetch"
"$husk" kernel fetch

tar=$(scripts/debian-root.sh)
step "image: husk import tar:$tar $image"
"$husk" import "tar:$tar" "$image"
"$husk" images

step "run: husk run $image sh -c 'cat /etc/os-release; uname -a'"
"$husk" run "$image" sh -c 'cat /etc/os-release; uname -a'

step "done. More:  $1/cli/husk run -it $image bash    $1/cli/husk run --help"
