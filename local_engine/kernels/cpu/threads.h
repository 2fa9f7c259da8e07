/* Work shared out among PyTorch's own threads.

   Two teams of threads on the same cores wait for each other, so the OpenMP runtime that PyTorch has loaded is used, and
   nothing is linked. Threads take what comes next, rather than a fixed share: on a shared machine one of them may be
   held up. */

#ifndef LCDOC_THREADS_H
#define LCDOC_THREADS_H

/* Weak: absent where PyTorch was built with another runtime. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

typedef struct {
  void (*range)(const void *, long, long); /* does the parts from the first to before the second */
  const void *given;
  long parts, step; /* how many parts there are, and how many a thread takes at a time */
  long next;        /* the first that nobody has taken */
} Shared;

static void take_parts(void *given) {
  Shared *shared = given;
  for (;;) {
    long first = __atomic_fetch_add(&shared->next, shared->step, __ATOMIC_RELAXED);
    if (first >= shared->parts) return;
    long last = first + shared->step;
    shared->range(shared->given, first, last < shared->parts ? last : shared->parts);
  }
}

static void share_out(void (*range)(const void *, long, long), const void *given, long parts, long step, int threads) {
  Shared shared = {range, given, parts, step < 1 ? 1 : step, 0};
  if (threads > 1 && GOMP_parallel && parts > shared.step)
    GOMP_parallel(take_parts, &shared, (unsigned)threads, 0);
  else
    take_parts(&shared);
}

#endif
