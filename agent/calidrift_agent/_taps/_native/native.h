/* What the three files that Python sees have in common.
 *
 * Built for the limited API of Python 3.11, so that one file serves all later ones; tensors are
 * read through DLPack's C exchange table, so that no version of torch is compiled in.
 */
#ifndef CALIDRIFT_NATIVE_H
#define CALIDRIFT_NATIVE_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "strip.h"

/* The part of DLPack 1.x that is used here: https://github.com/dmlc/dlpack, `dlpack.h`. */
typedef struct {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

typedef struct {
    struct { uint32_t major, minor; } version;
    void *previous;
    void *allocate, *managed_from_object, *managed_to_object;
    int (*tensor_from_object)(void *object, DLTensor *out);
    void *current_stream;
} DLExchange;

enum { DL_CPU = 1, DL_FLOAT = 2 };

extern Plan native_plan;
extern const DLExchange *native_exchange;
extern PyTypeObject *native_tensor_type, *native_strip_type;
extern PyType_Spec native_strip_spec, native_tap_spec;

/* `Strip` of Python. */
typedef struct {
    PyObject_HEAD
    Strip strip;
    Py_buffer limits; /* Limit of each point */
    Py_ssize_t points;
    const void *last; /* memory of the tensor before; never read */
    long long own_ns, elements;
} StripObject;

/* Observes a tensor: 1, or 0 where Python must do it. Never leaves an error behind. */
int native_take(StripObject *self, Py_ssize_t point, PyObject *value);

/* Puts the words that taps look up into the table of strings; -1 with an error set. */
int native_tap_words(void);

/* The drain. */
extern Columns native_columns;
PyObject *native_fold(StripObject *self, PyObject *cells);
PyObject *native_add_ranges(StripObject *self, PyObject *args);
PyObject *native_add_clips(StripObject *self, PyObject *args);
PyObject *native_add_unit(PyObject *module, PyObject *args);

PyObject *native_arm(PyObject *module, PyObject *taps);
PyObject *native_disarm(PyObject *module, PyObject *taps);

#endif
