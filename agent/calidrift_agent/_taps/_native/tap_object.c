/* `Tap`: stands in an observed module as its forward; the base of `_observe._armed.LiveTap`. */
#include "native.h"

static PyObject *word_forward, *word_strip, *word_observe_any, *word_observe_input, *word_arm,
    *word_disarm, *word_bind;

int native_tap_words(void)
{
    word_forward = PyUnicode_InternFromString("forward");
    word_strip = PyUnicode_InternFromString("strip");
    word_observe_any = PyUnicode_InternFromString("observe_any");
    word_observe_input = PyUnicode_InternFromString("observe_input");
    word_arm = PyUnicode_InternFromString("arm");
    word_disarm = PyUnicode_InternFromString("disarm");
    word_bind = PyUnicode_InternFromString("bind");
    return PyErr_Occurred() ? -1 : 0;
}

typedef struct {
    PyObject_HEAD
    PyObject *calls;   /* thread -> recorder of the call that it is observing */
    PyObject *forward; /* what is called; NULL or None for the forward of the module's class */
    PyObject *plain;   /* the forward of the module's class, once known to be a plain function */
    PyObject *module;
    PyObject *own; /* what stood in the module's __dict__ before, or None */
    Py_ssize_t input, output;
    char armed;
} TapObject;

static void replace(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    Py_XINCREF(value);
    *slot = value;
    Py_XDECREF(old);
}

static int tap_init(TapObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"module", "input_point", "output_point", "calls", NULL};
    PyObject *module, *calls;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnnO!", names, &module, &self->input,
                                     &self->output, &PyDict_Type, &calls))
        return -1;
    replace(&self->module, module);
    replace(&self->calls, calls);
    return 0;
}

static int tap_traverse(TapObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->calls);
    Py_VISIT(self->forward);
    Py_VISIT(self->plain);
    Py_VISIT(self->module);
    Py_VISIT(self->own);
    return 0;
}

static int tap_clear(TapObject *self)
{
    replace(&self->calls, NULL);
    replace(&self->forward, NULL);
    replace(&self->plain, NULL);
    replace(&self->module, NULL);
    replace(&self->own, NULL);
    return 0;
}

static void tap_dealloc(TapObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    tap_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *call_forward(TapObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *result, *forward = self->forward;
    if (forward != NULL && forward != Py_None) {
        Py_INCREF(forward); /* the tap may be taken out meanwhile */
        result = PyObject_Call(forward, args, kwargs);
        Py_DECREF(forward);
        return result;
    }
    forward = PyObject_GetAttr((PyObject *)Py_TYPE(self->module), word_forward);
    if (forward == NULL)
        return NULL;
    if (forward != self->plain) { /* a static method, say: bound by Python itself */
        Py_DECREF(forward);
        forward = PyObject_CallMethodObjArgs((PyObject *)self, word_bind, NULL);
        if (forward == NULL)
            return NULL;
        result = PyObject_Call(forward, args, kwargs);
        Py_DECREF(forward);
        return result;
    }
    Py_ssize_t count = PyTuple_Size(args);
    PyObject *bound = PyTuple_New(count + 1);
    if (bound == NULL) {
        Py_DECREF(forward);
        return NULL;
    }
    Py_INCREF(self->module);
    PyTuple_SetItem(bound, 0, self->module);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyTuple_GetItem(args, i);
        Py_INCREF(value);
        PyTuple_SetItem(bound, i + 1, value);
    }
    result = PyObject_Call(forward, bound, kwargs);
    Py_DECREF(bound);
    Py_DECREF(forward);
    return result;
}

/* `recorder.observe(point, value)`; -1 only for what must go through, such as an interrupt. */
static int observe(PyObject *recorder, Py_ssize_t point, PyObject *value)
{
    PyObject *strip = PyObject_GetAttr(recorder, word_strip);
    if (strip == NULL)
        return -1;
    int taken = Py_TYPE(strip) == native_strip_type && native_take((StripObject *)strip, point, value);
    Py_DECREF(strip);
    if (taken)
        return 0;
    PyObject *row = PyLong_FromSsize_t(point);
    PyObject *done =
        row ? PyObject_CallMethodObjArgs(recorder, word_observe_any, row, value, NULL) : NULL;
    Py_XDECREF(row);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int observe_input(TapObject *self, PyObject *recorder, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_Size(args) > 0)
        return observe(recorder, self->input, PyTuple_GetItem(args, 0));
    PyObject *empty = kwargs ? NULL : PyDict_New();
    PyObject *row = PyLong_FromSsize_t(self->input);
    PyObject *done = row && (kwargs || empty)
                         ? PyObject_CallMethodObjArgs(recorder, word_observe_input, row, args,
                                                      kwargs ? kwargs : empty, NULL)
                         : NULL;
    Py_XDECREF(row);
    Py_XDECREF(empty);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *tap_call(TapObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *thread = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
    if (thread == NULL)
        return NULL;
    PyObject *recorder = PyDict_GetItemWithError(self->calls, thread);
    Py_DECREF(thread);
    if (recorder == NULL)
        return PyErr_Occurred() ? NULL : call_forward(self, args, kwargs);
    Py_INCREF(recorder);
    PyObject *output = NULL;
    if (self->input < 0 || observe_input(self, recorder, args, kwargs) == 0)
        output = call_forward(self, args, kwargs);
    if (output != NULL && self->output >= 0 && observe(recorder, self->output, output) < 0) {
        Py_DECREF(output);
        output = NULL;
    }
    Py_DECREF(recorder);
    return output;
}

static PyMemberDef tap_members[] = {
    {"_calls", T_OBJECT, offsetof(TapObject, calls), 0, NULL},
    {"_forward", T_OBJECT, offsetof(TapObject, forward), 0, NULL},
    {"_plain", T_OBJECT, offsetof(TapObject, plain), 0, NULL},
    {"_module", T_OBJECT, offsetof(TapObject, module), READONLY, NULL},
    {"_input", T_PYSSIZET, offsetof(TapObject, input), READONLY, NULL},
    {"_output", T_PYSSIZET, offsetof(TapObject, output), READONLY, NULL},
    {"own", T_OBJECT, offsetof(TapObject, own), 0, NULL},
    {"armed", T_BOOL, offsetof(TapObject, armed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot tap_slots[] = {
    {Py_tp_init, tap_init},     {Py_tp_dealloc, tap_dealloc}, {Py_tp_traverse, tap_traverse},
    {Py_tp_clear, tap_clear},   {Py_tp_call, tap_call},       {Py_tp_members, tap_members},
    {0, NULL},
};

PyType_Spec native_tap_spec = {
    "calidrift_agent._taps._native._tap.Tap", sizeof(TapObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, tap_slots,
};

/* `tap.arm()` or `tap.disarm()`, for a module whose forward is not simply that of its class. */
static int call_method(PyObject *tap, PyObject *name, int *refused)
{
    PyObject *result = PyObject_CallMethodObjArgs(tap, name, NULL);
    if (result == NULL)
        return -1;
    *refused = result == Py_False;
    Py_DECREF(result);
    return 0;
}

PyObject *native_arm(PyObject *unused, PyObject *taps)
{
    (void)unused;
    int refused;
    Py_ssize_t count = PyList_Size(taps);
    for (Py_ssize_t i = 0; i < count; i++) {
        TapObject *tap = (TapObject *)PyList_GetItem(taps, i);
        PyObject *attributes = PyObject_GenericGetDict(tap->module, NULL);
        if (attributes == NULL)
            return NULL;
        PyObject *found = PyDict_GetItemWithError(attributes, word_forward);
        int failed = 0;
        if (found == NULL && !PyErr_Occurred()) {
            replace(&tap->own, NULL);
            replace(&tap->forward, NULL);
            tap->armed = 1;
            failed = PyDict_SetItem(attributes, word_forward, (PyObject *)tap);
        } else {
            failed = PyErr_Occurred() ? -1 : call_method((PyObject *)tap, word_arm, &refused);
        }
        Py_DECREF(attributes);
        if (failed)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* Returns the positions of taps that must not be used again. */
PyObject *native_disarm(PyObject *unused, PyObject *taps)
{
    (void)unused;
    PyObject *stuck = PyList_New(0);
    for (Py_ssize_t i = PyList_Size(taps) - 1; stuck != NULL && i >= 0; i--) {
        TapObject *tap = (TapObject *)PyList_GetItem(taps, i);
        PyObject *attributes = PyObject_GenericGetDict(tap->module, NULL);
        int failed = attributes == NULL, refused = 0;
        if (!failed) {
            PyObject *found = PyDict_GetItemWithError(attributes, word_forward);
            if (found == (PyObject *)tap && (tap->own == NULL || tap->own == Py_None)) {
                tap->armed = 0;
                failed = PyDict_DelItem(attributes, word_forward);
            } else {
                failed = PyErr_Occurred() ? -1 : call_method((PyObject *)tap, word_disarm, &refused);
            }
            Py_DECREF(attributes);
        }
        if (!failed && refused) {
            PyObject *position = PyLong_FromSsize_t(i);
            failed = position == NULL || PyList_Append(stuck, position);
            Py_XDECREF(position);
        }
        if (failed)
            Py_CLEAR(stuck);
    }
    return stuck;
}
