/* What any server of server-sent events has to do at least: one send() of one event to one socket after the
 * other, with nothing before, between or behind.
 *
 *   floor
 *
 * Writes `{"port":P}`, accepts connections on that loopback port and answers each request with a head. A line
 * `send WHICH RATE SECONDS BYTES` on standard input sends events of about BYTES bytes, RATE a second (0: as fast
 * as it goes): each to `all` connections, or each to `one`, in turn. Then one line of JSON says how many. The end
 * of the input ends the program.
 *
 * Must not know what is measured. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENT_BYTES_MAX = 8192, CONNECTIONS_MAX = 20000 };

static int sockets[CONNECTIONS_MAX], count;
static char padding[EVENT_BYTES_MAX];

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n";

/* The frame the broker makes of the benchmark's event. */
static const char FRAME[] =
    "event: task.status\nid: m0000000-%ld\ndata: {\"type\":\"task.status\",\"taskId\":\"bench-%d\","
    "\"contextId\":\"bench\",\"seq\":%ld,\"at\":\"2025-01-01T00:00:00.000Z\",\"state\":\"working\","
    "\"text\":\"%.*s\",\"final\":false,\"metadata\":{\"n\":%ld,\"ts\":%ld}}\n\n";

static long clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_on_loopback(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void accept_one(int listener) {
    char request[4096];
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    if (count == CONNECTIONS_MAX) exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (read(fd, request, sizeof request) <= 0 || write(fd, HEAD, sizeof HEAD - 1) < 0) {
        close(fd);
        return;
    }
    sockets[count++] = fd;
}

static int compose(char *event, int task, long n, int text_bytes) {
    return snprintf(event, EVENT_BYTES_MAX, FRAME, n, task, n, text_bytes, padding, n, clock_ns(CLOCK_REALTIME));
}

static void sleep_until(long at_ns) {
    struct timespec at = {at_ns / 1000000000L, at_ns % 1000000000L};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) {}
}

static void send_events(int to_all, double rate, double seconds, int event_bytes) {
    char event[EVENT_BYTES_MAX];
    int text_bytes = event_bytes - compose(event, 0, 1000, 0);
    if (text_bytes < 0) text_bytes = 0;
    long events = 0, sent = 0, began = clock_ns(CLOCK_MONOTONIC), now;
    while ((now = clock_ns(CLOCK_MONOTONIC)) - began < (long)(seconds * 1e9)) {
        long due = rate > 0 ? began + (long)((double)events / rate * 1e9) : now;
        if (due > now) {
            sleep_until(due);
            continue;
        }
        /* Blocks where a client takes less than is sent, so that every event goes out whole. */
        if (to_all) {
            int length = compose(event, 0, events + 1, text_bytes);
            for (int i = 0; i < count; i++) sent += send(sockets[i], event, (size_t)length, MSG_NOSIGNAL) == length;
        } else {
            int i = (int)(events % count);
            int length = compose(event, i, events / count + 1, text_bytes);
            sent += send(sockets[i], event, (size_t)length, MSG_NOSIGNAL) == length;
        }
        events++;
    }
    printf("{\"events\":%ld,\"sent\":%ld,\"seconds\":%.6f}\n", events, sent,
           (double)(clock_ns(CLOCK_MONOTONIC) - began) * 1e-9);
    fflush(stdout);
}

static void obey(void) {
    char line[256], which[8];
    double rate, seconds;
    int event_bytes;
    if (fgets(line, sizeof line, stdin) == NULL) exit(0);
    if (sscanf(line, "send %7s %lf %lf %d", which, &rate, &seconds, &event_bytes) != 4 || count == 0 ||
        event_bytes > EVENT_BYTES_MAX - 64) {
        errno = EINVAL;
        fail(line);
    }
    send_events(strcmp(which, "all") == 0, rate, seconds, event_bytes);
}

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    memset(padding, 'x', sizeof padding - 1);
    setvbuf(stdin, NULL, _IONBF, 0); /* poll must see what is left to read */
    struct pollfd watched[2] = {{.fd = listen_on_loopback(), .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        if (poll(watched, 2, -1) < 0) fail("poll");
        if (watched[0].revents) accept_one(watched[0].fd);
        if (watched[1].revents) obey();
    }
}
