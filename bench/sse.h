/* Reads one HTTP response with server-sent events from bytes as they come.
 * Must not know sockets, nor what is measured.
 * Source: RFC 9112, section 7.1 (chunks); WHATWG HTML, section 9.2 (events). */
#ifndef SSE_H
#define SSE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SSE_ID_MAX = 64, SSE_WIRE_MAX = 256 };

typedef enum { SSE_HEAD, SSE_CHUNK_SIZE, SSE_CHUNK_DATA, SSE_CHUNK_END, SSE_PLAIN, SSE_OVER } sse_state;

/* One dispatched event. `n` and `ts` come from its data, -1 where it has none: a frame about the stream
 * itself, or a snapshot, which repeats what an event has said. */
typedef struct {
    int64_t n;
    int64_t ts;
    int has_data;
    int snapshot;
    int busy;
} sse_frame;

typedef struct sse {
    sse_state state;
    int status;       /* of the response; 0 before its first line */
    int chunked;
    size_t chunk_left;
    char wire[SSE_WIRE_MAX]; /* the beginning of an unfinished line of the head or of a chunk's size */
    size_t wire_length;
    char *line; /* the beginning of an unfinished line of the body */
    size_t line_length, line_room;
    sse_frame frame;
    char new_id[SSE_ID_MAX];
    char last_id[SSE_ID_MAX]; /* outlives a reconnect */
    long retry_ms;            /* what the server last asked for, -1 before */
} sse;

/* Supplied by the program: takes each dispatched event. */
static void sse_on_frame(sse *stream, const sse_frame *frame);

static void sse_begin_frame(sse *s) { s->frame = (sse_frame){.n = -1, .ts = -1}; }

/* Prepares for a new response; the last id stays. */
static void sse_begin(sse *s) {
    s->state = SSE_HEAD;
    s->status = s->chunked = 0;
    s->wire_length = s->line_length = s->chunk_left = 0;
    memcpy(s->new_id, s->last_id, SSE_ID_MAX);
    sse_begin_frame(s);
}

static void sse_free(sse *s) {
    free(s->line);
    s->line = NULL;
    s->line_room = s->line_length = 0;
}

static int64_t sse_number_after(const char *line, size_t length, const char *key, size_t key_length) {
    const char *found = memmem(line, length, key, key_length), *end = line + length;
    if (found == NULL) return -1;
    int64_t value = 0;
    for (found += key_length; found < end && *found >= '0' && *found <= '9'; found++)
        value = value * 10 + (*found - '0');
    return value;
}

static int sse_starts(const char **line, size_t *length, const char *name, size_t name_length) {
    if (*length < name_length || memcmp(*line, name, name_length) != 0) return 0;
    *line += name_length;
    *length -= name_length;
    if (*length > 0 && **line == ' ') {
        (*line)++;
        (*length)--;
    }
    return 1;
}

static void sse_body_line(sse *s, const char *line, size_t length) {
    if (length > 0 && line[length - 1] == '\r') length--;
    if (length == 0) {
        memcpy(s->last_id, s->new_id, SSE_ID_MAX);
        if (s->frame.has_data) {
            sse_frame frame = s->frame;
            if (frame.snapshot) frame.n = frame.ts = -1;
            sse_on_frame(s, &frame);
        }
        sse_begin_frame(s);
    } else if (sse_starts(&line, &length, "data:", 5)) {
        s->frame.has_data = 1;
        int64_t ts = sse_number_after(line, length, "\"ts\":", 5);
        if (ts > 0) {
            s->frame.ts = ts;
            s->frame.n = sse_number_after(line, length, "\"n\":", 4);
        }
    } else if (sse_starts(&line, &length, "id:", 3)) {
        if (length >= SSE_ID_MAX) length = SSE_ID_MAX - 1;
        memcpy(s->new_id, line, length);
        s->new_id[length] = 0;
    } else if (sse_starts(&line, &length, "event:", 6)) {
        s->frame.snapshot = length == 13 && memcmp(line, "task.snapshot", 13) == 0;
        s->frame.busy = length == 11 && memcmp(line, "stream.busy", 11) == 0;
    } else if (sse_starts(&line, &length, "retry:", 6)) {
        s->retry_ms = 0;
        for (size_t i = 0; i < length && i < 9 && line[i] >= '0' && line[i] <= '9'; i++)
            s->retry_ms = s->retry_ms * 10 + (line[i] - '0');
    }
}

static void sse_keep(sse *s, const char *data, size_t length) {
    if (s->line_length + length > s->line_room) {
        s->line_room = (s->line_length + length) * 2;
        s->line = realloc(s->line, s->line_room);
        if (s->line == NULL) abort();
    }
    memcpy(s->line + s->line_length, data, length);
    s->line_length += length;
}

static void sse_body(sse *s, const char *data, size_t length) {
    const char *end = data + length;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        if (newline == NULL) {
            sse_keep(s, data, (size_t)(end - data));
            return;
        }
        if (s->line_length > 0) {
            sse_keep(s, data, (size_t)(newline - data));
            sse_body_line(s, s->line, s->line_length);
            s->line_length = 0;
        } else {
            sse_body_line(s, data, (size_t)(newline - data));
        }
        data = newline + 1;
    }
}

static void sse_wire_line(sse *s) {
    char *line = s->wire;
    size_t length = s->wire_length;
    if (length > 0 && line[length - 1] == '\r') length--;
    line[length] = 0;
    s->wire_length = 0;
    switch (s->state) {
    case SSE_HEAD:
        if (s->status == 0) {
            const char *space = strchr(line, ' ');
            s->status = space ? atoi(space + 1) : -1;
        } else if (length == 0) {
            s->state = s->chunked ? SSE_CHUNK_SIZE : SSE_PLAIN;
        } else if (strncasecmp(line, "transfer-encoding:", 18) == 0 && strcasestr(line, "chunked")) {
            s->chunked = 1;
        }
        break;
    case SSE_CHUNK_SIZE:
        s->chunk_left = strtoul(line, NULL, 16);
        s->state = s->chunk_left ? SSE_CHUNK_DATA : SSE_OVER;
        break;
    default: /* the line end behind a chunk's data */
        s->state = SSE_CHUNK_SIZE;
    }
}

/* Takes the next bytes of the response, and calls `sse_on_frame` for every event they complete. */
static void sse_feed(sse *s, const char *data, size_t length) {
    const char *end = data + length;
    while (data < end && s->state != SSE_OVER) {
        size_t left = (size_t)(end - data);
        if (s->state == SSE_PLAIN) {
            sse_body(s, data, left);
            return;
        }
        if (s->state == SSE_CHUNK_DATA) {
            size_t taken = left < s->chunk_left ? left : s->chunk_left;
            sse_body(s, data, taken);
            data += taken;
            if ((s->chunk_left -= taken) == 0) s->state = SSE_CHUNK_END;
            continue;
        }
        const char *newline = memchr(data, '\n', left);
        size_t piece = newline ? (size_t)(newline - data) : left;
        size_t room = SSE_WIRE_MAX - 1 - s->wire_length;
        memcpy(s->wire + s->wire_length, data, piece < room ? piece : room); /* of a longer line the beginning */
        s->wire_length += piece < room ? piece : room;
        data += piece;
        if (newline) {
            data++;
            sse_wire_line(s);
        }
    }
}

#endif
