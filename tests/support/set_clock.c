/* Preloaded into a process and those it starts: their wall clock is the true one plus the seconds in the
   file that SET_CLOCK_FILE names. Monotonic clocks stay as they are. Whoever waits until a time of the
   wall clock waits wrongly, as when the clock is set under them.

   Declares what it uses, so that a compiler alone is enough: cc -shared -fPIC -nostdlib. */

struct timespec { long tv_sec, tv_nsec; };
struct timeval { long tv_sec, tv_usec; };

extern void *dlsym(void *handle, const char *name);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern int close(int fd);
extern void *mmap(void *address, unsigned long length, int protection, int flags, int fd, long offset);

enum { REALTIME = 0, REALTIME_COARSE = 5, READ_ONLY = 0, CLOSE_ON_EXEC = 02000000, READABLE = 1, SHARED = 1 };
#define NEXT ((void *)-1L) /* RTLD_NEXT */
#define FAILED ((void *)-1L) /* MAP_FAILED */

static const long right = 0;
static const volatile long *offset_s = &right;

__attribute__((constructor)) static void find_the_file(void)
{
    const char *path = getenv("SET_CLOCK_FILE");
    int fd = path ? open(path, READ_ONLY | CLOSE_ON_EXEC) : -1;
    void *mapped;
    if (fd < 0)
        return;
    mapped = mmap(0, sizeof(long), READABLE, SHARED, fd, 0);
    close(fd);
    if (mapped != FAILED)
        offset_s = mapped;
}

int clock_gettime(int clock, struct timespec *now)
{
    static int (*next)(int, struct timespec *);
    int failed;
    if (!next)
        next = (int (*)(int, struct timespec *))dlsym(NEXT, "clock_gettime");
    failed = next(clock, now);
    if (!failed && (clock == REALTIME || clock == REALTIME_COARSE))
        now->tv_sec += *offset_s;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

long time(long *out)
{
    struct timespec precise;
    clock_gettime(REALTIME, &precise);
    if (out)
        *out = precise.tv_sec;
    return precise.tv_sec;
}
