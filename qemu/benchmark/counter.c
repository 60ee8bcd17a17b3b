// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of the emulator that counts the instructions a guest with one processor executes, by the
 * place in the kernel they are at.
 *
 * At the start of each block of translated code the length of the block is added to a counter, of
 * which there is one for each 16 octets of kernel code and one for all of user space. Who connects
 * to the Unix socket `at=PATH` is sent all counters, as pairs of address and count, and no more.
 *
 * With `softirq=BEGIN-END`, the place of the kernel's handle_softirqs() in hexadecimal, what is executed
 * between its entry and its return is counted a second time, in the pair of the address SOFTIRQ.
 * Softirqs do not nest and are not preempted, so one counter is enough; hard interrupts that come
 * meanwhile are in it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The part of the emulator's interface for plugins that is used, version 4. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;

struct counter {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
};

enum { INLINE_ADD };
enum { NO_REGISTERS };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int cpu);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
		void (*translated)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, int op,
		struct counter entry, uint64_t value);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
		void (*executed)(unsigned int, void *), int registers, void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

/* More than the blocks of all that a front-end's kernel runs; a power of two. */
#define SLOTS (1u << 18)
#define GRANULE 16
#define KERNEL (1ull << 63)
/* Where user space is counted, and the kernel once the table is full. */
#define USER 0
#define REST 1
/* No address of the kernel's. */
#define SOFTIRQ 2
#define RETURN 0xc3

static struct qemu_plugin_scoreboard *score;
static struct qemu_plugin_scoreboard *all;
static uint64_t place[SLOTS] = { [USER] = 1, [REST] = KERNEL };
static unsigned int used;
static uint64_t handler, handler_end;
static volatile uint64_t in_softirq, since;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned int slot_of(uint64_t address)
{
	unsigned int slot;

	if (address < KERNEL)
		return USER;
	address &= ~(uint64_t)(GRANULE - 1);
	slot = (address / GRANULE * 0x9e3779b97f4a7c15ull) >> 46;
	for (;; slot++) {
		slot &= SLOTS - 1;
		if (place[slot] == address)
			return slot;
		if (place[slot])
			continue;
		if (used >= SLOTS / 4 * 3)
			return REST;
		used++;
		place[slot] = address;
		return slot;
	}
}

static uint64_t count(void)
{
	return *(volatile uint64_t *)qemu_plugin_scoreboard_find(all, 0);
}

static void enter(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	since = count();
}

static void leave(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	if (since)
		in_softirq += count() - since;
	since = 0;
}

static bool returns(struct qemu_plugin_tb *tb)
{
	size_t last = qemu_plugin_tb_n_insns(tb) - 1;
	unsigned char code = 0;

	qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, last), &code, 1);
	return code == RETURN;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	struct counter entry = { score, 0 };

	uint64_t at = qemu_plugin_tb_vaddr(tb);

	(void)id;
	pthread_mutex_lock(&lock);
	entry.offset = slot_of(at) * sizeof(uint64_t);
	pthread_mutex_unlock(&lock);
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD, entry,
			qemu_plugin_tb_n_insns(tb));
	entry = (struct counter) { all, 0 };
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD, entry,
			qemu_plugin_tb_n_insns(tb));
	if (at == handler)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, enter, NO_REGISTERS, NULL);
	else if (at > handler && at < handler_end && returns(tb))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, leave, NO_REGISTERS, NULL);
}

static void tell(int to)
{
	const volatile uint64_t *counts = qemu_plugin_scoreboard_find(score, 0);
	uint64_t begun = since;
	uint64_t softirq[2] = { SOFTIRQ, in_softirq + (begun ? count() - begun : 0) };
	FILE *file = fdopen(to, "w");

	if (!file) {
		close(to);
		return;
	}
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		uint64_t pair[2] = { place[slot], counts[slot] };

		if (pair[1])
			fwrite(pair, sizeof(pair), 1, file);
	}
	if (handler)
		fwrite(softirq, sizeof(softirq), 1, file);
	fclose(file);
}

static void *serve(void *listener)
{
	for (;;) {
		int to = accept((int)(intptr_t)listener, NULL, NULL);

		if (to >= 0)
			tell(to);
	}
	return NULL;
}

__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const void *info, int words, char **word)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	pthread_t thread;
	int listener;

	(void)info;
	for (int i = 0; i < words; i++) {
		if (!strncmp(word[i], "at=", 3) && strlen(word[i] + 3) < sizeof(at.sun_path))
			strcpy(at.sun_path, word[i] + 3);
		else if (sscanf(word[i], "softirq=%" SCNx64 "-%" SCNx64, &handler, &handler_end) != 2)
			at.sun_path[0] = 0;
	}
	if (!at.sun_path[0]) {
		fprintf(stderr, "counter: at=PATH[,softirq=BEGIN-END] is wanted\n");
		return -1;
	}
	unlink(at.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(listener, 4)) {
		perror("counter");
		return -1;
	}
	score = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	all = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return pthread_create(&thread, NULL, serve, (void *)(intptr_t)listener) ? -1 : 0;
}
