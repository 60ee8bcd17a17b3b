# SPDX-License-Identifier: GPL-2.0
#
# What a person types. The module's own build description is Kbuild.
#
#   make                 lard.ko (build/) and the tools (target/release/)
#   make load, unload    the module on this machine; PARAMS=family=19: with this parameter
#   make install         module, tools, man pages, unit and additions to units on this machine
#   make check           host tests      make fmt, clippy    format, lints (CLIPPY=1: kernel side too)
#   make figures         simulations (figures/)   make bench-policy   what decisions cost
#   make demo            a cluster in virtual machines, tables of who served what
#   make test            host tests, tests across machines, tests in namespaces that are not long; with
#                        AGAIN=1 those that failed once more, for a host that misses a guest's limits,
#                        unless a kernel has reported a fault
#   make test-ns         all tests in namespaces; make test-debug: on a debug kernel
#   make test-vms        all tests across machines
#   make bench           what a request costs the front-end: LARD, IPVS, nginx, HAProxy;
#                        make bench-quick: 6 KB and 1 MB; make bench-modes: persistent connections;
#                        make bench-native: times of a packet, a hand-off, a decision on this machine
#   make bench-locality  what LARD is worth where the disk is slow: WRR, LARD and others;
#                        make bench-persistent: LARD with many requests on a connection;
#                        make bench-batching: how many questions to the dispatcher share a write
#   make clean
#
#   KDIR=DIR             a kernel tree with Rust metadata; without it, that of the running kernel

BUILD := $(CURDIR)/build
# Where the systemd units and lard_run look.
PREFIX ?= /usr
CARGO := scripts/cargo
PYTEST := /usr/bin/python3 -m pytest -o cache_dir=$(BUILD)/pytest
# What is run across machines each time; `make test-vms` runs all that is marked for it.
ACROSS := -k "test_direct_return.py or test_requests.py or test_servers.py"
# A second processor makes an emulated guest cost nearly half as much again: often one waits for a lock
# whose owner the host does not run. So the guest of one tester has two, those of the others one.
TESTERS := -n 3 --processors 2,1,1
# $(call pytest,ARGUMENTS). The status is 1 when tests failed and no kernel has reported a fault.
pytest = $(PYTEST) qemu/tests $(1) $(TESTS) $(if $(AGAIN),|| { test $$? -eq 1 && \
	echo "== what failed is run once more" && $(PYTEST) qemu/tests $(1) --last-failed; })
KERNEL_ROOTS := rust/kernel_net/lib.rs net/lard/lard_main.rs

.DEFAULT_GOAL := all
.PHONY: all module tools load unload install check fmt fmt-check clippy figures bench-policy demo test \
	test-host test-ns test-across test-vms test-debug bench bench-quick bench-modes bench-native \
	bench-locality bench-persistent bench-batching setup clean

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
	@scripts/unload

install:
	install -D -m 644 $(BUILD)/lard.ko $(DESTDIR)/lib/modules/$(shell uname -r)/updates/lard.ko
	test -n "$(DESTDIR)" || depmod
	install -D -m 755 target/release/cluster_startup $(DESTDIR)$(PREFIX)/sbin/cluster_startup
	install -D -m 755 target/release/lard_run $(DESTDIR)$(PREFIX)/sbin/lard_run
	install -D -m 644 target/release/liblard_preload.so $(DESTDIR)$(PREFIX)/lib/lard/liblard_preload.so
	install -D -m 755 target/release/lard_sim $(DESTDIR)$(PREFIX)/bin/lard_sim
	for page in Documentation/man/*.[178]; do install -D -m 644 $$page \
		$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$(basename $$page); done
	install -D -m 644 tools/cluster_startup/systemd/lard.service \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/lard.service
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/lard/systemd \
		tools/cluster_startup/systemd/nfs.conf tools/cluster_startup/systemd/nginx-lard.conf
	test -e $(DESTDIR)/etc/default/lard || install -D -m 644 \
		tools/cluster_startup/systemd/lard.default $(DESTDIR)/etc/default/lard

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

figures:
	$(CARGO) run --release --package lard_sim -- figures --out figures

# Large tables are on huge pages, as kvmalloc() has them in the module.
bench-policy:
	$(CARGO) --config 'env.GLIBC_TUNABLES="glibc.malloc.hugetlb=1"' bench \
		--manifest-path rust/lard_core/bench/Cargo.toml

setup:
	scripts/setup --tests

demo:
	scripts/setup
	/usr/bin/python3 qemu/demo

# The host tests run while the set-up waits for the network; their report is shown when both are done.
test:
	@mkdir -p $(BUILD)
	@nice $(CARGO) test --workspace >$(BUILD)/host-tests.log 2>&1 & host=$$!; \
		scripts/setup --tests; setup=$$?; wait $$host; status=$$?; \
		echo "== host tests"; cat $(BUILD)/host-tests.log; exit $$((setup | status))
	scripts/check-python
	$(call pytest,--vms $(ACROSS))
	$(call pytest,$(TESTERS) -m "not long")

test-ns: setup
	$(call pytest,-n 2)

test-across: setup
	$(call pytest,--vms $(ACROSS))

test-vms: setup
	$(call pytest,--vms)

test-debug: setup
	scripts/debug-kernel
	DEBUG=1 scripts/build-module
	$(call pytest,--debug-kernel -n 2)

bench: setup
	/usr/bin/python3 qemu/bench

bench-quick: setup
	/usr/bin/python3 qemu/bench --quick

bench-modes: setup
	/usr/bin/python3 qemu/bench --modes --runs 2

bench-native: setup
	scripts/debug-kernel --plain
	DEBUG=plain scripts/build-module
	LARD_UML=plain /usr/bin/python3 qemu/bench --native

bench-locality: setup
	$(CARGO) build --release --package lard_sim
	/usr/bin/python3 qemu/bench-locality

bench-persistent: setup
	$(CARGO) build --release --package lard_sim
	/usr/bin/python3 qemu/bench-locality --persistent

bench-batching: setup
	/usr/bin/python3 qemu/bench-batching

clean:
	rm -rf $(BUILD)
	$(CARGO) clean
