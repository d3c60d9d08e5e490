/*
 * The libcpg side of the benchmarks: the workloads of src/bench, through the C library.
 *
 * Build: gcc -std=gnu11 -O2 -Wall -Wextra -o libcpg libcpg.c -lcpg
 *
 *     libcpg flood GROUP SIZE COUNT WARMUP [WORK]   send COUNT messages as fast as possible and receive them back;
 *                                               work for WORK microseconds on each message that comes back
 *     libcpg latency GROUP SIZE COUNT WARMUP    one message at a time, from the call to its delivery
 *     libcpg receive GROUP 0 COUNT WARMUP       only receive; the CPU time for COUNT messages
 *     libcpg catchup GROUP 0 COUNT WARMUP       receive, and block after the warm-up until standard input has a line;
 *                                               the time for those of COUNT messages that wait by then
 *     libcpg paced GROUP SIZE COUNT RATE        send COUNT messages, RATE per second, and receive them back
 *     libcpg idle GROUP 0 CONNECTIONS 0         join with CONNECTIONS handles and wait for the end of standard input
 *
 * WARMUP messages precede the measurement. The program prints one line of JSON at the end. Each message begins with
 * its number (little-endian uint32), which reveals lost and duplicated messages.
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
static uint32_t checksum;
static unsigned members;
static double work;

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

/* Resident memory that is not shared: neither code nor the rings. */
static long own_bytes(void)
{
	long total, resident = 0, shared = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	if (statm && fscanf(statm, "%ld %ld %ld", &total, &resident, &shared) != 3)
		resident = shared = 0;
	if (statm)
		fclose(statm);
	return (resident - shared) * sysconf(_SC_PAGESIZE);
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "%s: %d\n", what, error);
	exit(1);
}

static void work_on_it(void)
{
	double end = now() + work;
	while (now() < end)
		;
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
	if (work > 0)
		work_on_it();
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

static void send_number(cpg_handle_t handle, struct iovec *message, uint32_t number, int fd)
{
	int error;

	memcpy(message->iov_base, &number, sizeof number);
	while ((error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, message, 1)) == CS_ERR_TRY_AGAIN) {
		/* There is no room, or flow control is on: take what arrived, and sleep if nothing did. */
		uint32_t before = received;
		dispatch(handle, CS_DISPATCH_ALL);
		if (received == before)
			wait_readable(fd);
	}
	if (error != CS_OK)
		fail("cpg_mcast_joined", error);
}

static void receive_until(cpg_handle_t handle, uint32_t count, int fd)
{
	while (received < count) {
		wait_readable(fd);
		dispatch(handle, CS_DISPATCH_ALL);
	}
}

static void flood(cpg_handle_t handle, struct iovec *message, uint32_t count, int fd)
{
	for (uint32_t i = 0; i < count; i++) {
		send_number(handle, message, i, fd);
		if (i % 64 == 63)
			dispatch(handle, CS_DISPATCH_ALL);
	}
	receive_until(handle, count, fd);
}

static void paced(cpg_handle_t handle, struct iovec *message, uint32_t count, int fd, uint32_t per_second)
{
	double begin = now();
	uint32_t sent = 0;

	while (sent < count) {
		double due = (now() - begin) * per_second;
		/* Messages that could not be sent in time are not made up for. */
		if (due - sent > per_second / 50)
			begin += (due - sent) / per_second;
		while (sent < count && sent < due)
			send_number(handle, message, sent++, fd);
		dispatch(handle, CS_DISPATCH_ALL);
		usleep(500);
	}
	receive_until(handle, count, fd);
}

static void round_trips(cpg_handle_t handle, struct iovec *message, uint32_t count, int fd, double *times)
{
	for (uint32_t i = 0; i < count; i++) {
		double sent = now();
		send_number(handle, message, i, fd);
		receive_until(handle, i + 1, fd);
		times[i] = (now() - sent) * 1e6;
	}
}

static void reset(void)
{
	received = 0;
	wrong = 0;
	checksum = 0;
}

static void print_delivered(void)
{
	printf("{\"received\":%u,\"wrong\":%u,\"checksum\":\"%u\"", received, wrong, checksum);
}

int main(int argc, char **argv)
{
	if (argc != 6 && argc != 7)
		fail("usage: libcpg flood|paced|latency|receive|catchup|idle GROUP SIZE COUNT WARMUP [WORK]", argc);
	const char *mode = argv[1];
	size_t size = strtoul(argv[3], NULL, 10);
	uint32_t count = strtoul(argv[4], NULL, 10);
	uint32_t warmup = strtoul(argv[5], NULL, 10);
	work = argc == 7 ? strtod(argv[6], NULL) / 1e6 : 0;

	if (!strcmp(mode, "idle")) {
		char end;
		long before = own_bytes();
		for (uint32_t i = 0; i < count; i++) {
			char name[64];
			snprintf(name, sizeof name, "%s-%u", argv[2], i);
			join(open_handle(), name);
		}
		printf("{\"connections\":%u,\"bytesPerConnection\":%ld}\n", count, (own_bytes() - before) / (long)count);
		fflush(stdout);
		return read(0, &end, 1) < 0;
	}

	cpg_handle_t handle = open_handle();
	int fd;
	cpg_fd_get(handle, &fd);
	join(handle, argv[2]);
	while (members == 0)
		dispatch(handle, CS_DISPATCH_ONE);

	struct iovec message = { .iov_base = calloc(1, size + sizeof(uint32_t)), .iov_len = size };
	double *times = calloc(count + warmup + 1, sizeof *times);
	uint32_t measured = count;
	char line;

	int receives = !strcmp(mode, "receive") || !strcmp(mode, "catchup");
	if (receives) {
		fprintf(stderr, "ready\n");
		receive_until(handle, warmup, fd);
		measured = warmup + count - received;
		if (!strcmp(mode, "catchup") && read(0, &line, 1) != 1)
			return 1;
	} else if (!strcmp(mode, "flood")) {
		flood(handle, &message, warmup, fd);
		reset();
	} else if (!strcmp(mode, "latency")) {
		round_trips(handle, &message, warmup, fd, times);
		reset();
	}

	double begin = now(), begin_cpu = cpu();
	if (receives)
		receive_until(handle, warmup + count, fd);
	else if (!strcmp(mode, "flood"))
		flood(handle, &message, count, fd);
	else if (!strcmp(mode, "paced"))
		paced(handle, &message, count, fd, warmup);
	else
		round_trips(handle, &message, count, fd, times);
	double seconds = now() - begin, cpu_micros = (cpu() - begin_cpu) * 1e6 / measured;

	print_delivered();
	printf(",\"seconds\":%f,\"cpuMicrosPerMessage\":%f", seconds, cpu_micros);
	if (!strcmp(mode, "catchup"))
		printf(",\"waiting\":%u,\"microsPerMessage\":%f", measured, seconds * 1e6 / measured);
	if (!strcmp(mode, "flood") || !strcmp(mode, "paced"))
		printf(",\"messagesPerSecond\":%f,\"megabytesPerSecond\":%f", count / seconds, count * (double)size / seconds / 1e6);
	if (!strcmp(mode, "latency")) {
		qsort(times, count, sizeof *times, by_value);
		printf(",\"p50\":%f,\"p90\":%f,\"p99\":%f", times[count / 2], times[count * 9ul / 10], times[count * 99ul / 100]);
	}
	printf("}\n");
	cpg_finalize(handle);
	return 0;
}
