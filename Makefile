# SPDX-License-Identifier: Apache-2.0
# Makefile - the doors of the tree; Meson and scripts/ do the work behind them.
#
#   make demo        install what is missing, build, make a Debian image, run a command in it as a microVM
#   make build       build into build/
#   make test        the suite of every day: unit and device tests under sanitizers, then real VMs
#   make test-kvm    of these the KVM machine's: in a lab, or on this machine where its KVM runs guests
#   make test-full   the same and the long sweeps; builds the tuned guest kernel, once
#   make bench       the figures, as a table
#   make install     into PREFIX (/usr/local), DESTDIR is honoured

PREFIX ?= /usr/local

.PHONY: all build demo test test-kvm test-full bench install clean

all: build

build:
	@scripts/build.sh build --prefix=$(PREFIX)

demo:
	@scripts/need.sh build demo
	@scripts/build.sh build --prefix=$(PREFIX)
	@scripts/demo.sh build

test:
	@scripts/need.sh build demo test
	@scripts/test.sh

test-kvm:
	@scripts/need.sh build demo test
	@scripts/build.sh build --prefix=$(PREFIX)
	@python3 tests/lab/lab.py run

test-full:
	@scripts/need.sh build demo test kernel
	@scripts/test.sh --full

bench:
	@scripts/need.sh build demo test
	@scripts/build.sh build --prefix=$(PREFIX)
	@python3 bench/bench.py build

install: build
	meson install -C build --no-rebuild

clean:
	rm -rf build build-asan
