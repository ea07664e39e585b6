/* `Strip`: what the taps of one call saw, for Python. */
#include "native.h"

#include <string.h>
#include <time.h>

#define LARGE_TENSOR (1 << 20) /* elements from which the interpreter lock is given up: 0.1 ms */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static PyObject *strip_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limits", NULL};
    PyObject *limits;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &limits))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    StripObject *self = (StripObject *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(limits, &self->limits, PyBUF_C_CONTIGUOUS) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->points = self->limits.len / (Py_ssize_t)sizeof(Limit);
    strip_begin(&self->strip, 1, 1, 0);
    return (PyObject *)self;
}

static void strip_dealloc(StripObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    strip_free(&self->strip);
    PyBuffer_Release(&self->limits);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *strip_begin_call(StripObject *self, PyObject *args)
{
    long long rows, repeat;
    unsigned long draw;
    if (!PyArg_ParseTuple(args, "LLk", &rows, &repeat, &draw))
        return NULL;
    if (rows < 1 || repeat < 1) {
        PyErr_SetString(PyExc_ValueError, "rows and repeat must be at least 1");
        return NULL;
    }
    strip_begin(&self->strip, rows, repeat, (uint32_t)draw);
    self->last = NULL;
    self->own_ns = self->elements = 0;
    Py_RETURN_NONE;
}

/* Whether the elements fill one block of memory with the first dimension outermost. */
static int is_block(const DLTensor *tensor, int64_t numel, int *contiguous)
{
    int64_t expected = 1;
    *contiguous = 1;
    if (tensor->strides == NULL)
        return 1;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != expected)
            *contiguous = 0;
        expected *= tensor->shape[i];
    }
    if (*contiguous)
        return 1;
    /* Another order, as in channels_last: each stride must be the product of the smaller ones. */
    if (tensor->ndim > 8 || (tensor->shape[0] != 1 &&
                             tensor->strides[0] * tensor->shape[0] != numel))
        return 0;
    expected = 1;
    int used = 0;
    for (int32_t found = 0; found < tensor->ndim; found++) {
        int32_t next = -1;
        for (int32_t i = 0; i < tensor->ndim; i++)
            if (!(used & 1 << i) && (tensor->shape[i] == 1 || tensor->strides[i] == expected)) {
                next = i;
                if (tensor->shape[i] == 1)
                    break;
            }
        if (next < 0)
            return 0;
        used |= 1 << next;
        expected *= tensor->shape[next];
    }
    return 1;
}

/* Describes a tensor that can be read here; 0 where it cannot. */
static int describe(PyObject *value, Strip *strip, Block *block)
{
    DLTensor tensor;
    int contiguous;
    if (Py_TYPE(value) != native_tensor_type)
        return 0;
    if (native_exchange->tensor_from_object(value, &tensor) != 0) {
        PyErr_Clear();
        return 0;
    }
    if (tensor.device.type != DL_CPU || tensor.dtype.code != DL_FLOAT || tensor.dtype.bits != 32 ||
        tensor.dtype.lanes != 1 || tensor.data == NULL)
        return 0;
    int64_t numel = 1;
    for (int32_t i = 0; i < tensor.ndim; i++)
        numel *= tensor.shape[i];
    /* Positions before rows, as in (T, B, ...): from there on Python sorts rows out. */
    if (strip->rows > 1 && tensor.ndim > 2 && tensor.shape[1] == strip->rows &&
        tensor.shape[0] != strip->rows)
        strip->wary = 1;
    if (strip->wary)
        return 0;
    /* A single element is always contiguous, even where torch negates it on reading. */
    if (numel < 2 || !is_block(&tensor, numel, &contiguous) ||
        (!contiguous && numel <= native_plan.whole_limit))
        return 0;
    block->data = (const float *)((const char *)tensor.data + tensor.byte_offset);
    block->dimensions = tensor.ndim;
    block->shape = tensor.shape;
    block->entries = tensor.ndim ? tensor.shape[0] : 1;
    block->numel = numel;
    if (tensor.ndim && block->entries % strip->repeat == 0) {
        block->entries /= strip->repeat;
        block->numel /= strip->repeat;
    }
    return 1;
}

int native_take(StripObject *self, Py_ssize_t point, PyObject *value)
{
    Block block;
    int failed;
    int64_t started = now_ns();
    if (point < 0 || point >= self->points || !describe(value, &self->strip, &block)) {
        self->last = NULL;
        return 0;
    }
    const Limit *limit = (const Limit *)self->limits.buf + point;
    int again = block.data == self->last;
    if (block.numel >= LARGE_TENSOR) {
        Py_BEGIN_ALLOW_THREADS
        failed = strip_take(&self->strip, &native_plan, limit, point, &block, again);
        Py_END_ALLOW_THREADS
    } else {
        failed = strip_take(&self->strip, &native_plan, limit, point, &block, again);
    }
    self->last = failed ? NULL : block.data;
    if (!failed)
        self->elements += self->strip.entry[self->strip.entries - 1].count;
    self->own_ns += now_ns() - started;
    return !failed;
}

static PyObject *strip_take_call(StripObject *self, PyObject *args)
{
    Py_ssize_t point;
    PyObject *value;
    if (!PyArg_ParseTuple(args, "nO", &point, &value))
        return NULL;
    return PyBool_FromLong(native_take(self, point, value));
}

#define COUNTS 9
#define SUMS 2

/* Everything but the samples, as three blocks of bytes: points, counts and sums of each mark, and
 * the extremes of its rows (largest, smallest, broken), all in double or int64. */
static PyObject *strip_figures(StripObject *self, PyObject *unused)
{
    (void)unused;
    Strip *strip = &self->strip;
    strip_weigh(strip);
    Py_ssize_t marks = (Py_ssize_t)strip->marks, rows = (Py_ssize_t)strip->rows;
    PyObject *counts = PyBytes_FromStringAndSize(NULL, marks * COUNTS * 8);
    PyObject *sums = PyBytes_FromStringAndSize(NULL, marks * SUMS * 8);
    PyObject *extremes = PyBytes_FromStringAndSize(NULL, marks * ROW_FIGURES * rows * 8);
    if (counts == NULL || sums == NULL || extremes == NULL) {
        Py_XDECREF(counts);
        Py_XDECREF(sums);
        Py_XDECREF(extremes);
        return NULL;
    }
    int64_t *count = (int64_t *)PyBytes_AsString(counts);
    double *sum = (double *)PyBytes_AsString(sums);
    double *extreme = (double *)PyBytes_AsString(extremes);
    for (Py_ssize_t i = 0; i < marks; i++) {
        const Mark *mark = &strip->mark[i];
        const Entry *entry = &strip->entry[mark->entry];
        int64_t row[COUNTS] = {mark->point,  mark->entry,     entry->numel,
                               entry->weight, entry->count,   entry->nan,
                               entry->inf,   entry->clip_low, entry->clip_high};
        memcpy(count + i * COUNTS, row, sizeof row);
        sum[i * SUMS] = entry->clip_energy;
        sum[i * SUMS + 1] = entry->energy;
        const float *figures = strip->extreme + entry->extreme;
        for (Py_ssize_t kind = 0; kind < ROW_FIGURES; kind++)
            for (Py_ssize_t r = 0; r < rows; r++)
                *extreme++ = figures[kind * entry->parts + (entry->parts == 1 ? 0 : r)];
    }
    return Py_BuildValue("NNN", counts, sums, extremes);
}

/* The samples of an entry, float32, as bytes. */
static PyObject *strip_sample(StripObject *self, PyObject *args)
{
    Py_ssize_t index;
    if (!PyArg_ParseTuple(args, "n", &index))
        return NULL;
    if (index < 0 || index >= self->strip.entries) {
        PyErr_SetString(PyExc_IndexError, "no such entry");
        return NULL;
    }
    const Entry *entry = &self->strip.entry[index];
    return PyBytes_FromStringAndSize((const char *)(self->strip.sample + entry->sample),
                                     (Py_ssize_t)entry->count * 4);
}

static PyObject *strip_size(StripObject *self, void *unused)
{
    (void)unused;
    const Strip *strip = &self->strip;
    size_t size = strip->entry_room * sizeof(Entry) + strip->mark_room * sizeof(Mark) +
                  (strip->sample_room + strip->extreme_room) * sizeof(float);
    return PyLong_FromSize_t(size);
}

static PyObject *strip_marks(StripObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(self->strip.marks);
}

static PyMethodDef strip_methods[] = {
    {"begin", (PyCFunction)strip_begin_call, METH_VARARGS, NULL},
    {"take", (PyCFunction)strip_take_call, METH_VARARGS, NULL},
    {"fold", (PyCFunction)native_fold, METH_O, NULL},
    {"add_ranges", (PyCFunction)native_add_ranges, METH_VARARGS, NULL},
    {"add_clips", (PyCFunction)native_add_clips, METH_VARARGS, NULL},
    {"figures", (PyCFunction)strip_figures, METH_NOARGS, NULL},
    {"sample", (PyCFunction)strip_sample, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef strip_members[] = {
    {"own_ns", T_LONGLONG, offsetof(StripObject, own_ns), READONLY, NULL},
    {"elements", T_LONGLONG, offsetof(StripObject, elements), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef strip_properties[] = {
    {"size", (getter)strip_size, NULL, NULL, NULL},
    {"marks", (getter)strip_marks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot strip_slots[] = {
    {Py_tp_new, strip_new},         {Py_tp_dealloc, strip_dealloc}, {Py_tp_methods, strip_methods},
    {Py_tp_members, strip_members}, {Py_tp_getset, strip_properties}, {0, NULL},
};

PyType_Spec native_strip_spec = {
    "calidrift_agent._taps._native._tap.Strip", sizeof(StripObject), 0, Py_TPFLAGS_DEFAULT,
    strip_slots,
};
