/* The module `_tap`: the types, and what connects them with this process's torch. */
#include "native.h"

#include <stdlib.h>
#include <string.h>

#define PROTOCOL 3 /* what `_native/__init__.py` expects */

Plan native_plan;
Columns native_columns;
const DLExchange *native_exchange;
PyTypeObject *native_tensor_type, *native_strip_type;

static PyObject *setup(PyObject *unused, PyObject *args)
{
    (void)unused;
    PyObject *tensor, *table;
    Plan given = {0};
    Py_buffer view;
    Columns at;
    if (!PyArg_ParseTuple(args, "OO(LLLLL)(LLLLLLLLLLLLLLLLLLLL)", &tensor, &table,
                          &given.sample_limit, &given.least, &given.share, &given.whole_limit,
                          &given.cells, &at.counts, &at.values, &at.rows, &at.elements, &at.nan,
                          &at.inf, &at.clip_elements, &at.clip_low, &at.clip_high, &at.units,
                          &at.exceedances, &at.ratio_first, &at.units_measured,
                          &at.units_not_finite, &at.lowest, &at.highest, &at.clipped_energy,
                          &at.energy, &at.ratio_sum, &at.unit_highest))
        return NULL;
    PyObject *capsule = PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__");
    if (capsule == NULL)
        return NULL;
    const DLExchange *found = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    Py_DECREF(capsule); /* the table lives as long as the process */
    if (found == NULL)
        return NULL;
    if (found->version.major != 1 || found->tensor_from_object == NULL || given.cells > MAX_CELLS) {
        PyErr_SetString(PyExc_ImportError, "unknown version of DLPack, or too many cells");
        return NULL;
    }
    if (PyObject_GetBuffer(table, &view, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    if (view.len == (1 << 16) * (Py_ssize_t)sizeof(uint32_t))
        given.table = malloc((size_t)view.len);
    if (given.table != NULL)
        memcpy(given.table, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (given.table == NULL) {
        PyErr_SetString(PyExc_ValueError, "the table must hold 65536 numbers of 32 bits");
        return NULL;
    }
    free(native_plan.table);
    native_plan = given;
    native_columns = at;
    native_exchange = found;
    Py_INCREF(tensor);
    native_tensor_type = (PyTypeObject *)tensor;
    strip_choose(0);
    Py_RETURN_NONE;
}

/* Whether to use the code for any processor; for tests. */
static PyObject *choose(PyObject *unused, PyObject *plain)
{
    (void)unused;
    int truth = PyObject_IsTrue(plain);
    if (truth < 0)
        return NULL;
    strip_choose(truth);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"choose", choose, METH_O, NULL},
    {"setup", setup, METH_VARARGS, NULL},
    {"add_unit", native_add_unit, METH_VARARGS, NULL},
    {"arm", native_arm, METH_O, NULL},
    {"disarm", native_disarm, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_tap", NULL, -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__tap(void)
{
    if (native_tap_words() < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    PyObject *strip = PyType_FromSpec(&native_strip_spec);
    PyObject *tap = PyType_FromSpec(&native_tap_spec);
    native_strip_type = (PyTypeObject *)strip;
    if (module == NULL || strip == NULL || tap == NULL ||
        PyModule_AddObjectRef(module, "Strip", strip) < 0 ||
        PyModule_AddObjectRef(module, "Tap", tap) < 0 ||
        PyModule_AddIntConstant(module, "PROTOCOL", PROTOCOL) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
