/*
 * The libcpg side of the benchmarks: the same jobs as client.js, through the C library.
 *
 * Build: gcc -std=gnu11 -O2 -Wall -Wextra -o libcpg libcpg.c -lcpg
 *
 *     libcpg flood GROUP SIZE COUNT      send COUNT messages as fast as possible and take them back
 *     libcpg latency GROUP SIZE COUNT    one message at a time, from the call to its delivery
 *     libcpg receive GROUP SIZE COUNT    only receive; CPU time for COUNT messages
 *     libcpg idle GROUP CONNECTIONS 0    join with CONNECTIONS handles and wait for the end of standard input
 *
 * Prints one line of JSON at the end. A message begins with its number (little-endian uint32), so that a lost
 * or doubled one is seen.
 *
 * SPDX-License-Identifier: MIT
 */
#include <corosync/cpg.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint32_t received;
static uint32_t wrong;
static uint64_t checksum;
static unsigned members;
static uint32_t receive_count;
static double receive_begin_cpu;
static double receive_begin;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "%s: %d\n", what, error);
	exit(1);
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *message,
                       size_t length)
{
	uint32_t number;
	(void)handle, (void)group, (void)nodeid, (void)pid;
	if (length < sizeof number) {
		wrong++;
		return;
	}
	memcpy(&number, message, sizeof number);
	if (number != received)
		wrong++;
	checksum = checksum * 31 + number;
	received++;
	if (received == 1 && receive_count) {
		receive_begin_cpu = cpu();
		receive_begin = now();
	}
}

static void on_confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *list, size_t count,
                       const struct cpg_address *left, size_t left_count, const struct cpg_address *joined,
                       size_t joined_count)
{
	(void)handle, (void)group, (void)list, (void)left, (void)left_count, (void)joined, (void)joined_count;
	members = count;
}

static cpg_handle_t open_handle(void)
{
	cpg_callbacks_t callbacks = { on_deliver, on_confchg };
	cpg_handle_t handle;
	int error = cpg_initialize(&handle, &callbacks);
	if (error != CS_OK)
		fail("cpg_initialize", error);
	return handle;
}

static void join(cpg_handle_t handle, const char *name)
{
	struct cpg_name group = { .length = strlen(name) };
	int error;
	memcpy(group.value, name, group.length);
	while ((error = cpg_join(handle, &group)) == CS_ERR_TRY_AGAIN)
		usleep(1000);
	if (error != CS_OK)
		fail("cpg_join", error);
}

static void dispatch(cpg_handle_t handle, cs_dispatch_flags_t flags)
{
	int error = cpg_dispatch(handle, flags);
	if (error != CS_OK && error != CS_ERR_TRY_AGAIN)
		fail("cpg_dispatch", error);
}

static void wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	poll(&p, 1, 100);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		fail("usage: libcpg flood|latency|receive|idle GROUP SIZE COUNT", argc);
	const char *mode = argv[1];
	size_t size = strtoul(argv[3], NULL, 10);
	uint32_t count = strtoul(argv[4], NULL, 10);

	if (!strcmp(mode, "idle")) {
		char end;
		for (size_t i = 0; i < size; i++) {
			char name[64];
			snprintf(name, sizeof name, "%s-%zu", argv[2], i);
			join(open_handle(), name);
		}
		printf("ready\n");
		fflush(stdout);
		return read(0, &end, 1) < 0;
	}

	cpg_handle_t handle = open_handle();
	int fd;
	cpg_fd_get(handle, &fd);
	join(handle, argv[2]);
	while (members == 0)
		dispatch(handle, CS_DISPATCH_ONE);

	if (!strcmp(mode, "receive")) {
		receive_count = count;
		printf("ready\n");
		fflush(stdout);
		while (received < count) {
			wait_readable(fd);
			dispatch(handle, CS_DISPATCH_ALL);
		}
		printf("{\"received\":%u,\"wrong\":%u,\"cpuMicrosPerMessage\":%f,\"seconds\":%f}\n", received, wrong,
		       (cpu() - receive_begin_cpu) * 1e6 / count, now() - receive_begin);
		cpg_finalize(handle);
		return 0;
	}

	char *message = calloc(1, size);
	struct iovec iov = { .iov_base = message, .iov_len = size };
	double begin = now(), begin_cpu = cpu();
	if (!strcmp(mode, "flood")) {
		for (uint32_t i = 0; i < count; i++) {
			int error;
			memcpy(message, &i, sizeof i);
			while ((error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, &iov, 1)) == CS_ERR_TRY_AGAIN) {
				/* The ring is held: take what came, and sleep when nothing did. */
				uint32_t before = received;
				dispatch(handle, CS_DISPATCH_ALL);
				if (received == before)
					wait_readable(fd);
			}
			if (error != CS_OK)
				fail("cpg_mcast_joined", error);
			if (i % 64 == 63)
				dispatch(handle, CS_DISPATCH_ALL);
		}
		while (received < count) {
			wait_readable(fd);
			dispatch(handle, CS_DISPATCH_ALL);
		}
		double seconds = now() - begin;
		printf("{\"received\":%u,\"wrong\":%u,\"checksum\":\"%llu\",\"seconds\":%f,\"messagesPerSecond\":%f,\"cpuMicrosPerMessage\":%f}\n",
		       received, wrong, (unsigned long long)checksum, seconds, count / seconds, (cpu() - begin_cpu) * 1e6 / count);
	} else {
		double *times = calloc(count, sizeof *times);
		for (uint32_t i = 0; i < count; i++) {
			int error;
			double sent = now();
			memcpy(message, &i, sizeof i);
			while ((error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, &iov, 1)) == CS_ERR_TRY_AGAIN)
				;
			if (error != CS_OK)
				fail("cpg_mcast_joined", error);
			while (received == i) {
				wait_readable(fd);
				dispatch(handle, CS_DISPATCH_ALL);
			}
			times[i] = (now() - sent) * 1e6;
		}
		qsort(times, count, sizeof *times, by_value);
		printf("{\"received\":%u,\"wrong\":%u,\"p50\":%f,\"p90\":%f,\"p99\":%f,\"cpuMicrosPerMessage\":%f}\n", received, wrong,
		       times[count / 2], times[count * 9 / 10], times[count * 99 / 100], (cpu() - begin_cpu) * 1e6 / count);
	}
	cpg_finalize(handle);
	return 0;
}
