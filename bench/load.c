/* Opens many connections to a server of server-sent events, counts, checks and times what they get.
 *
 *   load --port P [--host 127.0.0.1] [--connections 1] [--path /tasks/bench-%d/events] [--modulo 1]
 *        [--body JSON] [--ready head|frame|EVENTS] [--opening 256] [--in-turn] [--timeout 60]
 *
 * Connection i gets PATH with i modulo MODULO for its %d; where there is a BODY it posts that, with i for its %d.
 * It is ready once the response's head, its first frame, or that many events have come. Of an event counts what
 * its JSON says: `"ts":` when it was published (CLOCK_REALTIME, ns) and `"n":` its number within its task, which
 * on each connection must rise by one.
 *
 * When all are ready, one line of JSON is written. Then lines are read from standard input, each answered by
 * one line: `mark` sets all counts to zero; `report` gives them; `wait EVENTS SECONDS` gives them once so many
 * events have come since the mark, or the time is over; `storm PORT SECONDS` closes all connections and opens
 * them again at PORT, all at once, each with its Last-Event-ID. The end of the input ends the program.
 *
 * Must not know which server it talks to. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "sse.h"

enum {
    READ_BYTES = 1 << 18,
    CONNECTIONS_MAX = 20000,
    PATH_BYTES_MAX = 512,
    BODY_BYTES_MAX = 1024,
    NUMBER_BYTES_MAX = 16, /* what a connection's number may take in the place of its format */
    PER_ADDRESS = 4000,  /* connections from one source address: their ports rest in TIME_WAIT afterwards */
    STORM_SLICE = 64,    /* connects between two looks at what has arrived */
    RETRY_MS = 1000,     /* before a refused connection is tried again, where the server names no time */
    TICK_MS = 20,
};

typedef enum { CLOSED, CONNECTING, WAITING, READY } phase;

typedef struct {
    sse stream; /* first, so that a stream's address is its connection's */
    int fd;
    int number;
    phase phase;
    int busy;
    int64_t began_ns;
    int64_t retry_at_ns; /* 0: none */
    int64_t last_n;
    long events;
    long events_of_response;
} connection;

static struct {
    const char *host, *path, *body; /* no body: NULL */
    int port, connections, modulo, opening_max, in_turn;
    long ready_events; /* 0: the head is enough; -1: the first frame */
    double timeout_s;
} options = {"127.0.0.1", "/", NULL, 0, 1, 1, 256, 0, 0, 60};

static connection *connections;
static int epoll_fd, next_to_open, opening, ready_count;
static int64_t read_at_ns; /* when the bytes being looked at arrived, CLOCK_REALTIME */

/* Since the last mark. */
static long events, bytes, holes, repeats, ended, refused, retries;
static int64_t first_ns, last_ns;
static histogram latency, head_time, ready_time;

/* What is being waited for: all connections ready, or a number of events. */
static enum { NOTHING, ALL_READY, EVENTS } awaited = ALL_READY;
static const char *ready_phase = "connected";
static long awaited_events;
static int64_t awaited_until_ns, opened_at_ns;

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---------------------------------------------------------------- answers */

static void print_ready(void) {
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - opened_at_ns) * 1e-9;
    printf("{\"phase\":\"%s\",\"connections\":%d,\"ready\":%d,\"seconds\":%.4f,\"refused\":%ld,\"retries\":%ld,",
           ready_phase, options.connections, ready_count, seconds, refused, retries);
    printf("\"holes\":%ld,\"repeats\":%ld,", holes, repeats);
    histogram_print("head_ms", &head_time);
    printf(",");
    histogram_print("ready_ms", &ready_time);
    printf("}\n");
    fflush(stdout);
}

static void print_report(void) {
    long fewest = -1, most = 0;
    for (int i = 0; i < options.connections; i++) {
        if (fewest < 0 || connections[i].events < fewest) fewest = connections[i].events;
        if (connections[i].events > most) most = connections[i].events;
    }
    printf("{\"phase\":\"report\",\"connections\":%d,\"ready\":%d,\"events\":%ld,\"bytes\":%ld,\"span_s\":%.6f,",
           options.connections, ready_count, events, bytes, (double)(last_ns - first_ns) * 1e-9);
    printf("\"fewest\":%ld,\"most\":%ld,\"holes\":%ld,\"repeats\":%ld,\"ended\":%ld,", fewest, most, holes,
           repeats, ended);
    histogram_print("latency_ms", &latency);
    printf("}\n");
    fflush(stdout);
}

static void mark(void) {
    events = bytes = holes = repeats = ended = refused = retries = 0;
    first_ns = last_ns = 0;
    histogram_clear(&latency);
    for (int i = 0; i < options.connections; i++) connections[i].events = 0;
}

/* ---------------------------------------------------------------- connections */

static void drop(connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    if (c->phase == READY) ready_count--;
    if (c->phase == CONNECTING || c->phase == WAITING) opening--;
    c->phase = CLOSED;
}

static void retry_later(connection *c) {
    long ms = c->busy && c->stream.retry_ms >= 0 ? c->stream.retry_ms : RETRY_MS;
    drop(c);
    retries++;
    c->retry_at_ns = clock_ns(CLOCK_MONOTONIC) + ms * 1000000LL;
}

static void bind_source(int fd, int number) {
    /* One source address has 28,000 ports; the port is chosen at connect, so that it must be free only
     * towards this server. */
    int one = 1;
    char text[32];
    struct sockaddr_in source = {.sin_family = AF_INET};
    if (strncmp(options.host, "127.", 4) != 0 || options.connections <= PER_ADDRESS) return;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    snprintf(text, sizeof text, "127.0.0.%d", 2 + number / PER_ADDRESS);
    inet_pton(AF_INET, text, &source.sin_addr);
    if (bind(fd, (struct sockaddr *)&source, sizeof source)) fail("bind");
}

/* Begins to connect; `c->began_ns` stays that of the first attempt where this one is a retry. */
static void begin(connection *c) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (inet_pton(AF_INET, options.host, &server.sin_addr) != 1) {
        errno = EINVAL;
        fail(options.host);
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    bind_source(c->fd, c->number);
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->phase = CONNECTING;
    c->retry_at_ns = 0;
    c->busy = 0;
    c->events_of_response = 0;
    opening++;
    sse_begin(&c->stream);
    if (c->began_ns == 0) c->began_ns = clock_ns(CLOCK_MONOTONIC);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        retry_later(c);
        return;
    }
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &interest)) fail("epoll_ctl");
}

/* Writes one of the options with a number for its %d, and gives its length. */
static int fill_in(char *text, size_t room, const char *format, int number) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return snprintf(text, room, format, number);
#pragma GCC diagnostic pop
}

static void send_request(connection *c) {
    char path[PATH_BYTES_MAX], body[BODY_BYTES_MAX] = "", request[PATH_BYTES_MAX + BODY_BYTES_MAX + 512];
    char last_id[SSE_ID_MAX + 32] = "", content[96] = "";
    if (c->stream.last_id[0]) snprintf(last_id, sizeof last_id, "Last-Event-ID: %s\r\n", c->stream.last_id);
    fill_in(path, sizeof path, options.path, c->number % options.modulo);
    if (options.body)
        snprintf(content, sizeof content, "Content-Type: application/json\r\nContent-Length: %d\r\n",
                 fill_in(body, sizeof body, options.body, c->number));
    int length = snprintf(request, sizeof request,
                          "%s %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n%s%s\r\n%s",
                          options.body ? "POST" : "GET", path, options.host, options.port, last_id, content,
                          body);
    if (write(c->fd, request, (size_t)length) != length) {
        retry_later(c);
        return;
    }
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &interest);
    c->phase = WAITING;
}

static void become_ready(connection *c) {
    histogram_add(&ready_time, clock_ns(CLOCK_MONOTONIC) - c->began_ns);
    c->phase = READY;
    opening--;
    ready_count++;
}

static void sse_on_frame(sse *stream, const sse_frame *frame) {
    connection *c = (connection *)stream;
    if (frame->busy) {
        c->busy = 1;
        return;
    }
    if (frame->n >= 0) {
        events++;
        c->events++;
        c->events_of_response++;
        histogram_add(&latency, read_at_ns - frame->ts);
        if (first_ns == 0) first_ns = read_at_ns;
        last_ns = read_at_ns;
        if (c->last_n >= 0 && frame->n != c->last_n + 1) *(frame->n > c->last_n ? &holes : &repeats) += 1;
        if (frame->n > c->last_n) c->last_n = frame->n;
    }
    if (c->phase == WAITING && options.ready_events &&
        (options.ready_events < 0 || c->events_of_response >= options.ready_events))
        become_ready(c);
}

static void on_readable(connection *c) {
    static char buffer[READ_BYTES];
    ssize_t length = read(c->fd, buffer, sizeof buffer);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length <= 0) {
        if (c->phase == READY) {
            ended++;
            drop(c);
        } else {
            retry_later(c);
        }
        return;
    }
    read_at_ns = clock_ns(CLOCK_REALTIME);
    bytes += length;
    int had_head = c->stream.state != SSE_HEAD;
    sse_feed(&c->stream, buffer, (size_t)length);
    if (c->stream.status && c->stream.status != 200) {
        if (refused++ == 0) fprintf(stderr, "load: refused: %.300s\n", buffer);
        retry_later(c);
        return;
    }
    if (!had_head && c->stream.state != SSE_HEAD) {
        histogram_add(&head_time, clock_ns(CLOCK_MONOTONIC) - c->began_ns);
        if (c->phase == WAITING && options.ready_events == 0) become_ready(c);
    }
    if (options.in_turn && c->phase == READY) {
        close(c->fd); /* it stays counted as ready */
        c->fd = -1;
    }
}

static void on_connected(connection *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        retry_later(c);
    else
        send_request(c);
}

/* Opens what may be opened now: new connections up to the limit, and refused ones whose time has come. */
static void open_more(void) {
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    int limit = options.in_turn ? 1 : options.opening_max;
    for (int begun = 0; next_to_open < options.connections && opening < limit && begun < STORM_SLICE; begun++)
        begin(&connections[next_to_open++]);
    static int64_t looked_ns;
    if (retries && now - looked_ns > TICK_MS * 1000000LL) {
        looked_ns = now;
        for (int i = 0; i < options.connections; i++)
            if (connections[i].retry_at_ns && connections[i].retry_at_ns <= now) begin(&connections[i]);
    }
}

static void storm(int port, double seconds) {
    for (int i = 0; i < options.connections; i++) drop(&connections[i]);
    for (int i = 0; i < options.connections; i++) connections[i].began_ns = connections[i].retry_at_ns = 0;
    options.port = port;
    options.opening_max = options.connections;
    options.ready_events = -1;
    next_to_open = 0;
    refused = retries = 0;
    histogram_clear(&head_time);
    histogram_clear(&ready_time);
    opened_at_ns = clock_ns(CLOCK_MONOTONIC);
    awaited = ALL_READY;
    ready_phase = "stormed";
    awaited_until_ns = opened_at_ns + (int64_t)(seconds * 1e9);
}

/* ---------------------------------------------------------------- the loop */

static void obey(char *line) {
    long count;
    int port;
    double seconds;
    if (strcmp(line, "mark") == 0) {
        mark();
        printf("{\"phase\":\"marked\"}\n");
        fflush(stdout);
    } else if (strcmp(line, "report") == 0) {
        print_report();
    } else if (sscanf(line, "wait %ld %lf", &count, &seconds) == 2) {
        awaited = EVENTS;
        awaited_events = count;
        awaited_until_ns = clock_ns(CLOCK_MONOTONIC) + (int64_t)(seconds * 1e9);
    } else if (sscanf(line, "storm %d %lf", &port, &seconds) == 2) {
        storm(port, seconds);
    } else {
        errno = EINVAL;
        fail(line);
    }
}

static void on_input(void) {
    static char input[4096];
    static size_t length;
    ssize_t more = read(STDIN_FILENO, input + length, sizeof input - 1 - length);
    if (more <= 0) {
        struct linger none = {1, 0}; /* reset, so that nothing of ours waits in TIME_WAIT */
        for (int i = 0; i < options.connections; i++)
            if (connections[i].fd >= 0) setsockopt(connections[i].fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
        exit(0);
    }
    length += (size_t)more;
    char *newline;
    while ((newline = memchr(input, '\n', length))) {
        *newline = 0;
        obey(input);
        length -= (size_t)(newline + 1 - input);
        memmove(input, newline + 1, length);
    }
}

static void answer_awaited(void) {
    int over = clock_ns(CLOCK_MONOTONIC) >= awaited_until_ns;
    if (awaited == ALL_READY && (ready_count == options.connections || over)) {
        awaited = NOTHING;
        print_ready();
    } else if (awaited == EVENTS && (events >= awaited_events || over)) {
        awaited = NOTHING;
        print_report();
    }
}

static void run(void) {
    struct epoll_event found[1024];
    for (;;) {
        int may_open = next_to_open < options.connections && opening < options.opening_max && !options.in_turn;
        int count = epoll_wait(epoll_fd, found, 1024, may_open ? 0 : TICK_MS);
        for (int i = 0; i < count; i++) {
            connection *c = found[i].data.ptr;
            if (c == NULL)
                on_input();
            else if (c->phase == CONNECTING)
                on_connected(c);
            else if (c->fd >= 0)
                on_readable(c);
        }
        open_more();
        answer_awaited();
    }
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {
        {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'}, {"path", 1, 0, 'a'},
        {"modulo", 1, 0, 'm'},  {"ready", 1, 0, 'r'},   {"opening", 1, 0, 'o'},     {"in-turn", 0, 0, 't'},
        {"timeout", 1, 0, 's'}, {"body", 1, 0, 'b'},    {0, 0, 0, 0},
    };
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'a': options.path = optarg; break;
        case 'm': options.modulo = atoi(optarg); break;
        case 'r':
            options.ready_events = strcmp(optarg, "head") == 0    ? 0
                                   : strcmp(optarg, "frame") == 0 ? -1
                                                                  : atol(optarg);
            break;
        case 'o': options.opening_max = atoi(optarg); break;
        case 't': options.in_turn = 1; break;
        case 's': options.timeout_s = atof(optarg); break;
        case 'b': options.body = optarg; break;
        default: exit(2);
        }
    }
    if (options.port <= 0 || options.modulo <= 0 || options.opening_max <= 0 || options.connections <= 0 ||
        options.connections > CONNECTIONS_MAX) {
        fprintf(stderr, "load: --port is needed, all numbers must be above 0, connections at most %d\n",
                CONNECTIONS_MAX);
        exit(2);
    }
    if (strlen(options.path) + NUMBER_BYTES_MAX > PATH_BYTES_MAX ||
        (options.body && strlen(options.body) + NUMBER_BYTES_MAX > BODY_BYTES_MAX)) {
        fprintf(stderr, "load: the path or the body is too long\n");
        exit(2);
    }
}

static void allow_descriptors(rlim_t needed) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < needed) limit.rlim_max = needed; /* works for root */
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit)) {
        fprintf(stderr, "load: %ld descriptors are needed, the limit is lower (ulimit -n)\n", (long)needed);
        exit(1);
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    allow_descriptors((rlim_t)options.connections + 16);
    connections = calloc((size_t)options.connections, sizeof *connections);
    if (connections == NULL) fail("calloc");
    for (int i = 0; i < options.connections; i++)
        connections[i].fd = -1, connections[i].number = i, connections[i].last_n = -1,
        connections[i].stream.retry_ms = -1;
    epoll_fd = epoll_create1(0);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input)) fail("standard input");
    opened_at_ns = clock_ns(CLOCK_MONOTONIC);
    awaited_until_ns = opened_at_ns + (int64_t)(options.timeout_s * 1e9);
    run();
}
