/* What decoding does between two looks at Python, on a CPU: products of a few tokens with a weight, norms, and attention
   to the paged cache, for bfloat16 and float32.

   These loops reach the memory's bandwidth, where general matrix products reach a third of it (plain layout) to two
   thirds (oneDNN's packed layout) for a single row, and a layer's dozen small operations take as long as its products.
   For a prompt's hundreds of rows PyTorch's own operators are the better ones. cpu_loops.py is the Python side. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "numbers.h"
#include "threads.h"

#define MOST_DIM 256 /* numbers a head */

typedef struct {
  const void *w, *x, *bias;
  void *y;
  long tokens, inputs, outputs;
} Product;

typedef struct {
  void *x;              /* [tokens, size]; with a residual, the sum of both afterwards */
  const void *residual; /* or none */
  const void *weight;
  void *y;
  long size;
  float eps;
} Norm;

typedef struct {
  const void *qkv;              /* [tokens, (heads * groups + 2 * heads) * dim] */
  const void *head_norm;        /* [heads * groups + heads, dim], or none */
  const float *cosines, *sines; /* [tokens, rotary / 2] */
  const int64_t *write;         /* [tokens, heads]: the place of each token's entry among all */
  void *keys, *values;          /* pages of entries [dim] */
  const int32_t *table;         /* the layer's pages, by slot and head */
  const int64_t *slots;         /* [tokens] */
  const int32_t *past;          /* entries of the layer's rows, by token and head */
  void *q, *y;                  /* [tokens, heads * groups, dim] */
  long heads, groups, dim, rotary, page, slot_stride, head_stride, past_stride, window, splits;
  long wide; /* dim, up to whole vectors */
  float scale, eps;
  float *sums, *most, *total; /* of each part of a row and each of its queries: [parts, groups, wide or 1] */
} Attention;

typedef void (*Range)(const void *, long, long);

/* Each for float32 and for bfloat16. */
typedef struct {
  Range linear[2], norm[2], gate[2], prepare[2], attend[2], combine[2];
} Loops;

#define NAME(x) x##_plain
#define TARGET
#define LANES 4
#include "loops.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#include "loops.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define LANES 16
#include "loops.h"

#define NAME(x) x##_avx512_bf16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")))
#define LANES 16
#define BF16_DOT
#include "loops.h"
#endif

static const struct {
  const char *name;
  const Loops *loops;
} instruction_sets[] = {
#if defined(__x86_64__)
    {"avx512_bf16", &loops_avx512_bf16},
    {"avx512", &loops_avx512},
    {"avx2", &loops_avx2},
#endif
    {"plain", &loops_plain},
};

static const int count_of_sets = sizeof instruction_sets / sizeof *instruction_sets;

static int runs_here(const char *name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const int wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (!strcmp(name, "avx512_bf16")) return wide && __builtin_cpu_supports("avx512bf16");
  if (!strcmp(name, "avx512")) return wide;
  if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return !strcmp(name, "plain");
}

/* NULL, with an error set, for a number that is none. */
static const Loops *loops_at(int number) {
  if (number >= 0 && number < count_of_sets && runs_here(instruction_sets[number].name))
    return instruction_sets[number].loops;
  PyErr_SetString(PyExc_ValueError, "these loops do not run on this processor");
  return NULL;
}

#define POINTER(address) ((void *)(uintptr_t)(address))

static const long STEP_BYTES = 128 << 10; /* of a weight, that a thread takes at a time */

static PyObject *linear(PyObject *self, PyObject *args) {
  (void)self;
  unsigned long long x, w, bias, y;
  long tokens, inputs, outputs;
  int bf16, set, threads;
  if (!PyArg_ParseTuple(args, "KKKKlllpii", &x, &w, &bias, &y, &tokens, &inputs, &outputs, &bf16, &set, &threads))
    return NULL;
  const Loops *loops = loops_at(set);
  if (!loops) return NULL;
  const Product product = {POINTER(w), POINTER(x), POINTER(bias), POINTER(y), tokens, inputs, outputs};
  const long row = inputs * (bf16 ? 2 : 4);
  Py_BEGIN_ALLOW_THREADS
  share_out(loops->linear[bf16], &product, outputs, row ? STEP_BYTES / row : outputs, threads);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyObject *norm(PyObject *self, PyObject *args) {
  (void)self;
  unsigned long long x, residual, weight, y;
  long tokens, size;
  float eps;
  int bf16, set;
  if (!PyArg_ParseTuple(args, "KKKKllfpi", &x, &residual, &weight, &y, &tokens, &size, &eps, &bf16, &set)) return NULL;
  const Loops *loops = loops_at(set);
  if (!loops) return NULL;
  const Norm given = {POINTER(x), POINTER(residual), POINTER(weight), POINTER(y), size, eps};
  loops->norm[bf16](&given, 0, tokens);
  Py_RETURN_NONE;
}

static PyObject *gate(PyObject *self, PyObject *args) {
  (void)self;
  unsigned long long x, y;
  long tokens, size;
  int bf16, set;
  if (!PyArg_ParseTuple(args, "KKllpi", &x, &y, &tokens, &size, &bf16, &set)) return NULL;
  const Loops *loops = loops_at(set);
  if (!loops) return NULL;
  const Norm given = {POINTER(x), NULL, NULL, POINTER(y), size, 0};
  loops->gate[bf16](&given, 0, tokens);
  Py_RETURN_NONE;
}

static const long KEYS_A_PART = 512; /* fewer are not worth another thread */

static PyObject *attend(PyObject *self, PyObject *args) {
  (void)self;
  unsigned long long qkv, head_norm, cosines, sines, write, keys, values, table, slots, past, y;
  long tokens, longest;
  int bf16, set, threads;
  Attention p = {0};
  if (!PyArg_ParseTuple(args, "KKKKKKKKKKKlllllllllllffpii", &qkv, &head_norm, &cosines, &sines, &write, &keys, &values,
                        &table, &slots, &past, &y, &tokens, &longest, &p.heads, &p.groups, &p.dim, &p.rotary, &p.page,
                        &p.slot_stride, &p.head_stride, &p.past_stride, &p.window, &p.scale, &p.eps, &bf16, &set,
                        &threads))
    return NULL;
  const Loops *loops = loops_at(set);
  if (!loops) return NULL;
  if (p.dim > MOST_DIM) {
    PyErr_SetString(PyExc_ValueError, "heads are too wide for these loops");
    return NULL;
  }
  p.qkv = POINTER(qkv), p.head_norm = POINTER(head_norm), p.cosines = POINTER(cosines), p.sines = POINTER(sines);
  p.write = POINTER(write), p.keys = POINTER(keys), p.values = POINTER(values), p.table = POINTER(table);
  p.slots = POINTER(slots), p.past = POINTER(past), p.y = POINTER(y);
  p.wide = (p.dim + 15) / 16 * 16;
  const long rows = tokens * p.heads, fair = (2 * threads + rows - 1) / rows, most = longest / KEYS_A_PART;
  p.splits = threads < 2 || most < 2 ? 1 : fair < most ? fair : most;
  const size_t queries = (size_t)rows * p.splits * p.groups, whole = (size_t)tokens * p.heads * p.groups * p.dim;
  float *scratch = malloc((queries * (p.wide + 2) + whole) * sizeof *scratch);
  if (!scratch) return PyErr_NoMemory();
  p.sums = scratch, p.most = scratch + queries * p.wide, p.total = p.most + queries, p.q = p.total + queries;
  Py_BEGIN_ALLOW_THREADS
  loops->prepare[bf16](&p, 0, tokens);
  share_out(loops->attend[bf16], &p, rows * p.splits, 1, threads);
  loops->combine[bf16](&p, 0, rows);
  free(scratch);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyObject *sets(PyObject *self, PyObject *none) {
  (void)self, (void)none;
  PyObject *found = PyList_New(0);
  for (int i = 0; found && i < count_of_sets; i++) {
    if (!runs_here(instruction_sets[i].name)) continue;
    PyObject *one = Py_BuildValue("(is)", i, instruction_sets[i].name);
    if (!one || PyList_Append(found, one)) Py_CLEAR(found);
    Py_XDECREF(one);
  }
  return found;
}

static PyObject *shares_threads(PyObject *self, PyObject *none) {
  (void)self, (void)none;
  return PyBool_FromLong(GOMP_parallel != NULL);
}

static PyMethodDef methods[] = {
    {"linear", linear, METH_VARARGS, "y = x @ weight.T + bias. Nothing is checked: see cpu_loops.py."},
    {"norm", norm, METH_VARARGS, "RMS norm. Nothing is checked: see cpu_loops.py."},
    {"gate", gate, METH_VARARGS, "silu(gate) * up. Nothing is checked: see cpu_loops.py."},
    {"attend", attend, METH_VARARGS, "Attention of single queries. Nothing is checked: see cpu_loops.py."},
    {"sets", sets, METH_NOARGS, "(number, name) of the instruction sets that this processor has, the best first."},
    {"shares_threads", shares_threads, METH_NOARGS, "Whether PyTorch's threads can be had."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "cpu_compiled", "What decoding does on a CPU.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_cpu_compiled(void) { return PyModule_Create(&module); }
