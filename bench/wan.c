/* A long way between two network namespaces: wan NEAR FAR DELAY_MS LOSS MBIT.
 *
 * Each namespace gets a TUN device `wan0`. A packet that is read from one is, with probability LOSS, dropped; else
 * it queues for the link (MBIT; what would wait longer than QUEUE_S is dropped) and is written to the other DELAY_MS
 * later. Prints "up" when both devices are there; ends when standard input does. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 65536
#define LARGEST 9216
#define QUEUE_S 0.1
#define BATCH 128

struct packet {
    double due;
    int size;
    char *data;
};

/* One direction: a ring of packets under way, and when its link is next free. */
struct line {
    struct packet ring[SLOTS];
    uint32_t head, tail;
    double free_at;
    int from, to;
};

static struct line lines[2];

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static int device(const char *namespace) {
    char path[256];
    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0)
        err(1, "namespace %s", namespace);
    close(space);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "wan0");
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0)
        err(1, "wan0 in %s", namespace);
    return tun;
}

static void take(struct line *line, double delay, double loss, double rate) {
    for (int count = 0; count < BATCH && line->head - line->tail < SLOTS; count++) {
        struct packet *packet = &line->ring[line->head % SLOTS];
        if (!packet->data && !(packet->data = malloc(LARGEST)))
            err(1, "memory");
        packet->size = read(line->from, packet->data, LARGEST);
        if (packet->size <= 0)
            return;
        double at = now(), begins = line->free_at > at ? line->free_at : at;
        if (drand48() < loss || begins - at > QUEUE_S)
            continue;
        line->free_at = begins + packet->size / rate;
        packet->due = line->free_at + delay;
        line->head++;
    }
}

/* Write what is due; return the seconds until more is, at most 1. */
static double give(struct line *line) {
    double at = now();
    while (line->tail != line->head) {
        struct packet *packet = &line->ring[line->tail % SLOTS];
        if (packet->due > at)
            return packet->due - at;
        if (write(line->to, packet->data, packet->size) < 0)
            ; /* the device is down: the packet is lost, as on a real link */
        line->tail++;
    }
    return 1;
}

int main(int count, char **words) {
    if (count != 6)
        errx(2, "usage: wan NEAR FAR DELAY_MS LOSS MBIT");
    int near = device(words[1]), far = device(words[2]);
    double delay = atof(words[3]) / 1e3, loss = atof(words[4]), rate = atof(words[5]) * 1e6 / 8;
    lines[0].from = lines[1].to = near;
    lines[0].to = lines[1].from = far;
    srand48(42);
    puts("up");
    fflush(stdout);
    for (;;) {
        double wait = give(&lines[0]), other = give(&lines[1]);
        wait = other < wait ? other : wait;
        struct timespec time = {.tv_sec = wait >= 1, .tv_nsec = wait >= 1 ? 0 : wait * 1e9};
        struct pollfd files[3] = {{near, POLLIN, 0}, {far, POLLIN, 0}, {0, 0, 0}};
        for (int i = 0; i < 2; i++)
            if (lines[i].head - lines[i].tail == SLOTS)
                files[i].events = 0;
        if (ppoll(files, 3, &time, NULL) < 0)
            err(1, "poll");
        if (files[2].revents)
            return 0;
        for (int i = 0; i < 2; i++)
            if (files[i].revents)
                take(&lines[i], delay, loss, rate);
    }
}
