# SPDX-License-Identifier: GPL-2.0
#
# What a person types. The module's own build description is Kbuild.
#
#   make                 lard.ko (build/) and the tools (target/release/)
#   make load, unload    the module on this machine
#   make install         module, tools, man pages and unit on this machine
#   make check           host tests      make fmt, clippy    format, lints (CLIPPY=1: kernel side too)
#   make demo            a cluster in virtual machines, one table
#   make test            everything; make test-debug: the namespace tests on a debug kernel
#   make clean
#
#   KDIR=DIR             a kernel tree with Rust metadata; without it, that of the running kernel

BUILD := $(CURDIR)/build
PREFIX ?= /usr/local
CARGO := scripts/cargo
PYTEST := /usr/bin/python3 -m pytest -p no:cacheprovider
KERNEL_ROOTS := rust/kernel_net/lib.rs net/lard/lard_main.rs

.DEFAULT_GOAL := all
.PHONY: all module tools load unload install check fmt fmt-check clippy demo test test-host \
	test-ns test-vms test-debug setup clean

all: module tools

module:
ifdef KDIR
	@scripts/check-kdir $(KDIR)
	@mkdir -p $(BUILD)/objects
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(BUILD)/objects modules
	strip --strip-debug -o $(BUILD)/lard.ko $(BUILD)/objects/lard.ko
else
	@scripts/native-module
endif

tools:
	$(CARGO) build --release

load: module
	@! test -d /sys/module/lard || { echo "lard is loaded already; first: make unload" >&2; false; }
	insmod $(BUILD)/lard.ko $(PARAMS)

unload:
	@test -d /sys/module/lard || { echo "lard is not loaded" >&2; false; }
	rmmod lard

install:
	install -D -m 644 $(BUILD)/lard.ko $(DESTDIR)/lib/modules/$(shell uname -r)/updates/lard.ko
	test -n "$(DESTDIR)" || depmod
	for tool in cluster_startup lard_run; do \
		install -D -m 755 target/release/$$tool $(DESTDIR)$(PREFIX)/sbin/$$tool; done
	for library in target/release/*.so; do test ! -e $$library || \
		install -D -m 644 $$library $(DESTDIR)$(PREFIX)/lib/lard/$$(basename $$library); done
	for page in Documentation/man/*.[178]; do test ! -e $$page || install -D -m 644 $$page \
		$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$(basename $$page); done
	for unit in tools/cluster_startup/systemd/*.service; do test ! -e $$unit || \
		install -D -m 644 $$unit $(DESTDIR)/etc/systemd/system/$$(basename $$unit); done

check: test-host

test-host:
	$(CARGO) test --workspace

fmt:
	$(CARGO) fmt --all
	rustfmt --edition 2021 $(KERNEL_ROOTS)

fmt-check:
	$(CARGO) fmt --all --check
	rustfmt --edition 2021 --check $(KERNEL_ROOTS)

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
ifeq ($(CLIPPY),1)
	@mkdir -p $(BUILD)
	CLIPPY=1 scripts/build-module 2>&1 | tee $(BUILD)/clippy.log
	@! grep -E '^(warning|error)' $(BUILD)/clippy.log
endif

setup:
	scripts/setup --tests

demo:
	scripts/setup
	/usr/bin/python3 qemu/demo

# The debug kernel takes long to build, so it is used here only when it is there.
test: setup test-host
	if scripts/debug-kernel --cached >/dev/null 2>&1; then $(MAKE) --no-print-directory test-debug; fi
	$(MAKE) --no-print-directory test-vms
	$(MAKE) --no-print-directory test-ns

test-ns:
	$(PYTEST) qemu/tests $(TESTS)

test-vms:
	$(PYTEST) qemu/tests --vms $(TESTS)

test-debug: setup
	scripts/debug-kernel
	DEBUG=1 scripts/build-module
	$(PYTEST) qemu/tests --debug-kernel $(TESTS)

clean:
	rm -rf $(BUILD)
	$(CARGO) clean
