/* The drain, for Python: one call per instrument, without the interpreter lock. */
#include "native.h"

/* The arrays of a window, held for the length of a call. */
typedef struct {
    Py_buffer cells, counts, values;
    int held; /* how many of them */
    Window window;
} Held;

static void let_go(Held *held)
{
    Py_buffer *views[] = {&held->cells, &held->counts, &held->values};
    for (int i = 0; i < held->held; i++)
        PyBuffer_Release(views[i]);
}

/* Takes hold of `cells` (may be NULL), `counts` and `values` of `points` points; -1 on error. */
static int hold(Held *held, PyObject *cells, PyObject *counts, PyObject *values, Py_ssize_t points)
{
    PyObject *given[] = {cells ? cells : counts, counts, values};
    Py_buffer *views[] = {&held->cells, &held->counts, &held->values};
    int64_t columns[] = {cells ? native_plan.cells : native_columns.counts, native_columns.counts,
                         native_columns.values};
    for (held->held = 0; held->held < 3; held->held++) {
        Py_buffer *view = views[held->held];
        if (PyObject_GetBuffer(given[held->held], view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) {
            let_go(held);
            return -1;
        }
        if (view->len != (Py_ssize_t)(points * columns[held->held] * 8)) {
            held->held++;
            let_go(held);
            PyErr_SetString(PyExc_ValueError, "a window must have one row per point");
            return -1;
        }
    }
    held->window = (Window){&native_columns, held->counts.buf, held->values.buf};
    return 0;
}

PyObject *native_add_ranges(StripObject *self, PyObject *args)
{
    PyObject *cells, *counts, *values, *result = NULL;
    Held held;
    if (!PyArg_ParseTuple(args, "OOO", &cells, &counts, &values) ||
        hold(&held, cells, counts, values, self->points) < 0)
        return NULL;
    Py_ssize_t marks = (Py_ssize_t)self->strip.marks, rows = (Py_ssize_t)self->strip.rows, found;
    int64_t *points = PyMem_Malloc((size_t)(marks + 1) * sizeof *points);
    double *absmax = PyMem_Malloc((size_t)(marks * rows + 1) * sizeof *absmax);
    if (points == NULL || absmax == NULL) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        strip_fold(&self->strip, &native_plan, held.cells.buf);
        found = (Py_ssize_t)strip_add_ranges(&self->strip, &held.window, points, absmax);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("y#y#", (const char *)points, found * 8, (const char *)absmax,
                               found * rows * 8);
    }
    PyMem_Free(points);
    PyMem_Free(absmax);
    let_go(&held);
    return result;
}

PyObject *native_fold(StripObject *self, PyObject *cells)
{
    Py_buffer view;
    if (PyObject_GetBuffer(cells, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0)
        return NULL;
    if (view.len != (Py_ssize_t)(self->points * native_plan.cells * 8)) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "cells must hold one histogram per point");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    strip_fold(&self->strip, &native_plan, view.buf);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

PyObject *native_add_clips(StripObject *self, PyObject *args)
{
    PyObject *counts, *values;
    Held held;
    if (!PyArg_ParseTuple(args, "OO", &counts, &values) ||
        hold(&held, NULL, counts, values, self->points) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    strip_weigh(&self->strip);
    strip_add_clips(&self->strip, &held.window);
    Py_END_ALLOW_THREADS
    let_go(&held);
    Py_RETURN_NONE;
}

/* add_unit(points, absmax, observed, bounds, counts, values) -> None, or whether it was covered */
PyObject *native_add_unit(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *counts, *values;
    Py_buffer points, absmax, observed, bounds;
    Held held;
    int covered = -2;
    if (!PyArg_ParseTuple(args, "y*y*y*y*OO", &points, &absmax, &observed, &bounds, &counts,
                          &values))
        return NULL;
    if (hold(&held, NULL, counts, values, observed.len / 8) == 0) {
        const int64_t *point = points.buf;
        Py_ssize_t count = points.len / 8;
        int fits = absmax.len == points.len;
        for (Py_ssize_t i = 0; fits && i < count; i++)
            fits = point[i] >= 0 && point[i] < observed.len / 8;
        if (fits)
            covered = strip_add_unit(&held.window, point, absmax.buf, count, observed.buf,
                                     bounds.buf, bounds.len / 8);
        else
            PyErr_SetString(PyExc_ValueError, "one magnitude for each of the points is needed");
        let_go(&held);
    }
    PyBuffer_Release(&points);
    PyBuffer_Release(&absmax);
    PyBuffer_Release(&observed);
    PyBuffer_Release(&bounds);
    if (covered == -2)
        return NULL;
    if (covered < 0)
        Py_RETURN_NONE;
    return PyBool_FromLong(covered);
}
