/* Burdens a server as somebody does who wants it to fail, and counts what becomes of it.
 *
 *   hostile --port P [--host 127.0.0.1] [--slow 0] [--drip-ms 1000] [--rate 0] [--path /] [--token TEXT]
 *
 * Holds SLOW connections whose request heads never end: each gets one more header field every DRIP-MS or so, and
 * they are begun over some ten seconds, as if they knew nothing of each other. Makes RATE connections a second, each with one whole request that carries TOKEN, closed once it was answered.
 * What the server closes is made again. Source addresses change, so that ports do not run out.
 *
 * Each line of standard input is answered by one line of JSON with the counts since the last; its end ends the
 * program.
 *
 * Must not know which server it talks to. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    QUICK_MAX = 4096, /* under way at once; a server that is slower is not asked for more */
    TICK_MS = 10,
    SOURCES = 200,
    REQUEST_BYTES_MAX = 16384,
    OPENING_TICKS = 1000, /* over which the slow ones are begun */
};

typedef enum { CLOSED, CONNECTING, OPEN } phase;

typedef struct {
    int fd;
    int slow;
    phase phase;
    int64_t due_ns; /* the next piece of a slow head */
} connection;

static struct {
    const char *host, *path, *token;
    int port, slow, drip_ms, rate;
} options = {"127.0.0.1", "/", NULL, 0, 0, 1000, 0};

static connection *connections; /* the slow ones first */
static int count, epoll_fd, slow_open;
static char request[REQUEST_BYTES_MAX];
static int request_bytes;

/* Since the last report. */
static long asked, unauthenticated, limited, other, reset, slow_cut, skipped;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void drop(connection *c) {
    if (c->phase == OPEN && c->slow) slow_open--;
    close(c->fd);
    c->fd = -1;
    c->phase = CLOSED;
}

static void begin(connection *c) {
    static unsigned next_source;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    int on = 1;
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in own = {.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + next_source++ % SOURCES);
    if (bind(c->fd, (struct sockaddr *)&own, sizeof own)) fail("bind");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    inet_pton(AF_INET, options.host, &to.sin_addr);
    c->phase = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        reset++;
        drop(c);
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
}

static int say(connection *c, const char *text, size_t bytes) {
    if (send(c->fd, text, bytes, MSG_NOSIGNAL) == (ssize_t)bytes) return 1;
    reset++;
    drop(c);
    return 0;
}

/* Not the very last one: of that, some bits don't count. */
static void vary_token(void) {
    static unsigned number;
    char *last = request + request_bytes - 4 - 8;
    number++;
    for (int i = 0; i < 6; i++) last[i] = (char)('a' + (number >> (4 * i)) % 16);
}

static int64_t next_drip(int64_t now) {
    return now + options.drip_ms * (500000LL + rand() % 1000000);
}

static void on_connected(connection *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    c->phase = OPEN;
    if (c->slow) {
        static const char head[] = "GET /tasks/none/events HTTP/1.1\r\nHost: x\r\n";
        slow_open++;
        c->due_ns = next_drip(now_ns());
        say(c, head, sizeof head - 1);
    } else {
        if (options.token) vary_token();
        say(c, request, (size_t)request_bytes);
    }
}

static void on_readable(connection *c) {
    char answer[4096];
    ssize_t got = recv(c->fd, answer, sizeof answer - 1, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (c->slow) {
        slow_cut++;
    } else if (got <= 0) {
        reset++;
    } else {
        answer[got] = 0;
        if (!strncmp(answer, "HTTP/1.1 401", 12)) unauthenticated++;
        else if (!strncmp(answer, "HTTP/1.1 429", 12)) limited++;
        else other++;
    }
    drop(c);
}

static void on_tick(int64_t now) {
    static int64_t began_ns;
    static long long made;
    int opened = 0, opened_max = options.slow / OPENING_TICKS + 1;
    for (int i = 0; i < options.slow; i++) {
        connection *c = &connections[i];
        if (c->phase == CLOSED && opened < opened_max) {
            begin(c);
            opened++;
        } else if (c->phase == OPEN && now >= c->due_ns) {
            c->due_ns = next_drip(now);
            say(c, "X-A: b\r\n", 8);
        }
    }
    if (!options.rate) return;
    if (!began_ns) began_ns = now;
    long long wanted = (now - began_ns) / 1000000 * options.rate / 1000;
    for (int i = options.slow; i < count && made < wanted; i++) {
        if (connections[i].phase != CLOSED) continue;
        begin(&connections[i]);
        asked++;
        made++;
    }
    skipped += (long)(wanted - made);
    made = wanted;
}

static int on_input(void) {
    char line[256];
    if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
    printf("{\"slow_open\":%d,\"slow_cut\":%ld,\"asked\":%ld,\"unauthenticated\":%ld,\"limited\":%ld,"
           "\"other\":%ld,\"reset\":%ld,\"skipped\":%ld}\n",
           slow_open, slow_cut, asked, unauthenticated, limited, other, reset, skipped);
    fflush(stdout);
    asked = unauthenticated = limited = other = reset = slow_cut = skipped = 0;
    return 1;
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {
        {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'},  {"slow", 1, 0, 's'},  {"drip-ms", 1, 0, 'd'},
        {"rate", 1, 0, 'r'}, {"path", 1, 0, 'u'}, {"token", 1, 0, 't'}, {0, 0, 0, 0},
    };
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (name == 'h') options.host = optarg;
        else if (name == 'p') options.port = atoi(optarg);
        else if (name == 's') options.slow = atoi(optarg);
        else if (name == 'd') options.drip_ms = atoi(optarg);
        else if (name == 'r') options.rate = atoi(optarg);
        else if (name == 'u') options.path = optarg;
        else if (name == 't') options.token = optarg;
        else exit(2);
    }
    request_bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n%s%s%s\r\n", options.path,
                             options.token ? "Authorization: Bearer " : "", options.token ? options.token : "",
                             options.token ? "\r\n" : "");
    if (request_bytes >= (int)sizeof request) exit(2);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    count = options.slow + (options.rate ? QUICK_MAX : 0);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    if (files.rlim_max < (rlim_t)count + 16 || setrlimit(RLIMIT_NOFILE, &files)) fail("open files");
    connections = calloc((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++) connections[i] = (connection){.fd = -1, .slow = i < options.slow};
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("epoll_ctl");
    for (int64_t tick_ns = now_ns();;) {
        int ready = epoll_wait(epoll_fd, events, 512, TICK_MS);
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            if (!c) {
                if (!on_input()) return 0;
            } else if (c->phase == CONNECTING && events[i].events & (EPOLLERR | EPOLLHUP)) {
                reset++;
                drop(c);
            } else if (c->phase == CONNECTING && events[i].events & EPOLLOUT) {
                on_connected(c);
            } else if (c->phase == OPEN) {
                on_readable(c);
            }
        }
        int64_t now = now_ns();
        if (now >= tick_ns) {
            tick_ns = now + TICK_MS * 1000000LL;
            on_tick(now);
        }
    }
}
