/* See calls.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "calls.h"

/* ---- lending memory: a memoryview and every slice of it hold the exporter until they are let go ---- */

typedef struct exporter {
    PyObject_HEAD
    const void *data;
    Py_ssize_t length;
    Py_ssize_t lent; /* views and slices alive */
} exporter_t;


static int lend(PyObject *self, Py_buffer *view, int flags)
{
    exporter_t *e = (exporter_t *)self;
    if (PyBuffer_FillInfo(view, self, (void *)(uintptr_t)e->data, e->length, 1, flags) < 0) return -1;
    e->lent++;
    return 0;
}


static void take_back(PyObject *self, Py_buffer *view)
{
    (void)view;
    ((exporter_t *)self)->lent--;
}


static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}


static exporter_t *new_exporter(void)
{
    static PyObject *type;
    if (!type) {
        static PyType_Slot slots[] = {{Py_bf_getbuffer, lend}, {Py_bf_releasebuffer, take_back}, {Py_tp_dealloc, dealloc}, {0, NULL}};
        static PyType_Spec spec = {"shardmos._native.PacketMemory", sizeof(exporter_t), 0, Py_TPFLAGS_DEFAULT, slots};
        type = PyType_FromSpec(&spec);
    }
    return type ? PyObject_New(exporter_t, (PyTypeObject *)type) : NULL;
}


static PyObject *view_of(smos_py_host_t *host, const void *data, uint64_t length)
{
    exporter_t *e = (exporter_t *)host->exporter;
    if (!e) {
        e = new_exporter();
        if (!e) return NULL;
        e->lent = 0;
        host->exporter = (uintptr_t)e;
    }
    e->data = data;
    e->length = (Py_ssize_t)length;
    return PyMemoryView_FromObject((PyObject *)e);
}


/* Afterwards using the view raises. A slice cannot be taken back: it is told, unless only an exception's traceback holds it, and keeps its
 * exporter to itself. */
static void release_view(const smos_py_call_t *c, PyObject *view, int raised)
{
    static PyObject *release;
    smos_py_host_t *host = c->host;
    if (!release) release = PyUnicode_InternFromString("release");
    PyObject *done = PyObject_CallMethodObjArgs(view, release, NULL);
    if (!done) PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(view);
    if (((exporter_t *)host->exporter)->lent == 0) return;
    Py_DECREF((PyObject *)host->exporter);
    host->exporter = 0;
    if (raised) return;
    PyObject *told = PyObject_CallFunction((PyObject *)host->kept, "IO", c->event, (PyObject *)c->callable);
    if (!told) PyErr_WriteUnraisable((PyObject *)c->callable);
    Py_XDECREF(told);
}


void smos_py_host_clear(smos_py_host_t *host)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_XDECREF((PyObject *)host->exporter);
    host->exporter = 0;
    PyGILState_Release(gil);
}


/* ---- calling ---- */

static PyObject *flow_of(const smos_py_call_t *c, const smos_call_t *call)
{
    if (!call->flow || !c->flows) {
        Py_INCREF(Py_None);
        return Py_None;
    }
    PyObject *key = PyLong_FromUnsignedLongLong(call->flow);
    if (!key) return NULL;
    PyObject *flow = PyDict_GetItemWithError((PyObject *)c->flows, key);
    if (flow)
        Py_INCREF(flow);
    else if (!PyErr_Occurred())
        flow = PyObject_CallFunctionObjArgs((PyObject *)c->make, key, NULL);
    Py_DECREF(key);
    return flow;
}


static PyObject *call_it(const smos_py_call_t *c, const smos_call_t *call)
{
    PyObject *callable = (PyObject *)c->callable, *argument, *result;
    if (c->kind == SMOS_PY_BARE) return PyObject_CallFunctionObjArgs(callable, NULL);
    PyObject *flow = flow_of(c, call);
    if (!flow) return NULL;
    switch (c->kind) {
    case SMOS_PY_PACKET:
        result = PyObject_CallFunctionObjArgs(callable, flow, call->packet ? (PyObject *)c->host->packet : Py_None, NULL);
        break;
    case SMOS_PY_DATA:
        argument = view_of(c->host, call->data, call->length);
        result = argument ? PyObject_CallFunctionObjArgs(callable, flow, argument, NULL) : NULL;
        if (argument && !result) {
            PyObject *type, *value, *trace;
            PyErr_Fetch(&type, &value, &trace);
            release_view(c, argument, 1);
            PyErr_Restore(type, value, trace);
        } else if (argument) {
            release_view(c, argument, 0);
        }
        break;
    case SMOS_PY_OTHER:
        argument = PyObject_CallFunctionObjArgs((PyObject *)c->argument, NULL);
        result = argument ? PyObject_CallFunctionObjArgs(callable, flow, argument, NULL) : NULL;
        Py_XDECREF(argument);
        break;
    default: result = PyObject_CallFunctionObjArgs(callable, flow, NULL);
    }
    Py_DECREF(flow);
    return result;
}


static void tell_failure(const smos_py_call_t *c)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (value && trace) PyException_SetTraceback(value, trace);
    PyObject *told = PyObject_CallFunction((PyObject *)c->host->failed, "IO", c->event, value ? value : Py_None);
    if (!told) PyErr_WriteUnraisable((PyObject *)c->callable);
    Py_XDECREF(told);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}


/* NULL: it raised, and that was told. */
static PyObject *call_and_tell(const smos_call_t *call)
{
    const smos_py_call_t *c = call->arg;
    smos_py_host_t *host = c->host;
    host->current = call;
    PyObject *result = call_it(c, call);
    if (!result) tell_failure(c);
    if (PyList_Size((PyObject *)host->views) > 0) {
        PyObject *done = PyObject_CallFunctionObjArgs((PyObject *)host->release, (PyObject *)c->callable, NULL);
        if (!done) PyErr_WriteUnraisable((PyObject *)c->callable);
        Py_XDECREF(done);
    }
    host->current = NULL;
    return result;
}


void smos_py_call(void *self, const smos_call_t *call)
{
    (void)self;
    if (((const smos_py_call_t *)call->arg)->host->ended) return;
    PyObject *result = call_and_tell(call);
    Py_XDECREF(result);
}


int smos_py_ask(void *self, const smos_call_t *call)
{
    (void)self;
    if (((const smos_py_call_t *)call->arg)->host->ended) return 0;
    PyObject *result = call_and_tell(call);
    if (!result) return 0;
    int yes = PyObject_IsTrue(result);
    Py_DECREF(result);
    if (yes < 0) PyErr_Clear();
    return yes > 0;
}
