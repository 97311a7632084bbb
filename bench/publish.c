/* Publishes events to a NATS server at a rate: one connection, events for several tasks in turn.
 *
 *   publish PORT SUBJECT PAYLOAD FIRST TASKS RATE SECONDS
 *
 * SUBJECT has `%d` for the task's number; PAYLOAD `%d`, `%ld` and `%ld` for the task's number, the event's number
 * within its task, and the time (CLOCK_REALTIME, ns). Writes `{}` once connected, begins when it gets a line, and
 * writes `{"events":N,"seconds":S}` when the server has taken everything.
 *
 * What is due is sent once a millisecond: each event in a write of its own would cost the server a read of its own.
 * Must not know what is measured. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, EVENT_BYTES_MAX = 8192, TICK_NS = 1000000 };

static char buffer[BUFFER_BYTES];
static int server;

static long clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(server, data, size, MSG_NOSIGNAL);
        if (sent <= 0) fail("send");
        data += sent;
        size -= (size_t)sent;
    }
}

/* Answers pings; with `until_pong`, returns when our own was answered, else when nothing is left to read. */
static void receive(int until_pong) {
    static char line[4096];
    static size_t held;
    for (;;) {
        ssize_t got = recv(server, line + held, sizeof line - held, until_pong ? 0 : MSG_DONTWAIT);
        if (got <= 0) {
            if (got < 0 && !until_pong) return;
            fail("recv");
        }
        held += (size_t)got;
        for (char *end; (end = memmem(line, held, "\r\n", 2)); held -= (size_t)(end + 2 - line), memmove(line, end + 2, held)) {
            if (!memcmp(line, "PING", 4)) send_all("PONG\r\n", 6);
            else if (!memcmp(line, "-ERR", 4)) {
                fprintf(stderr, "%.*s\n", (int)(end - line), line);
                exit(1);
            } else if (!memcmp(line, "PONG", 4) && until_pong) {
                held -= (size_t)(end + 2 - line);
                memmove(line, end + 2, held);
                return;
            }
        }
        if (held == sizeof line) held = 0; /* INFO may be longer: its end is of no interest */
    }
}

static void connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    static const char hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\"}\r\nPING\r\n";
    send_all(hello, sizeof hello - 1);
    receive(1);
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static size_t publish(char *at, const char *subject, const char *payload, int task, long n) {
    char event[EVENT_BYTES_MAX];
    int size = snprintf(event, sizeof event, payload, task, n, clock_ns(CLOCK_REALTIME));
    char *begin = at;
    at += sprintf(at, "PUB ");
    at += sprintf(at, subject, task);
    at += sprintf(at, " %d\r\n", size);
    memcpy(at, event, (size_t)size);
    memcpy(at + size, "\r\n", 2);
    return (size_t)(at + size + 2 - begin);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "publish PORT SUBJECT PAYLOAD FIRST TASKS RATE SECONDS\n");
        return 2;
    }
    int first = atoi(argv[4]), tasks = atoi(argv[5]);
    double rate = atof(argv[6]), seconds = atof(argv[7]);
    if (first < 0 || tasks < 1 || rate <= 0 || seconds <= 0) {
        fprintf(stderr, "FIRST, TASKS, RATE and SECONDS must be positive\n");
        return 2;
    }
    connect_to(atoi(argv[1]));
    puts("{}");
    fflush(stdout);
    if (getchar() == EOF) return 0;
    long began = clock_ns(CLOCK_MONOTONIC), total = (long)(rate * seconds), sent = 0;
    while (sent < total) {
        long due = (long)((double)(clock_ns(CLOCK_MONOTONIC) - began) * rate / 1e9) + 1;
        size_t held = 0;
        for (; sent < due && sent < total && held + 2 * EVENT_BYTES_MAX < BUFFER_BYTES; sent++)
            held += publish(buffer + held, argv[2], argv[3], first + (int)(sent % tasks), sent / tasks + 1);
        if (held) send_all(buffer, held);
        receive(0);
        struct timespec pause = {.tv_nsec = TICK_NS};
        nanosleep(&pause, NULL);
    }
    double took = (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e9;
    send_all("PING\r\n", 6);
    receive(1);
    printf("{\"events\":%ld,\"seconds\":%.6f}\n", sent, took);
    return 0;
}
