/* shardmos._record: a flow's record as a Python object whose fields are made when they are asked for. A loop over flows lives on a few of them,
 * and each costs less here than a call of a Python function. shardmos.flow.Flow is a subclass with all that is derived.
 *
 * An object holds its own copy of the record, so that a kept flow does not keep its batch; it refers to nothing that could refer back, so the
 * garbage collector need not know it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "shardmos/shardmos.h"

typedef struct record {
    PyObject_HEAD
    smos_flow_info_t info;
    PyObject *hashes; /* None without */
} record_t;

_Static_assert(sizeof(smos_flow_info_t) == 296, "shardmos.flow.RECORD_SIZE");


/* ---- fields: the closure is where in the record ---- */

#define AT(self, closure) ((const uint8_t *)&((const record_t *)(self))->info + (uintptr_t)(closure))
#define SIDE ((uintptr_t)sizeof(smos_endpoint_info_t))

static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }
static uint32_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
static uint16_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }

static PyObject *get_u64(PyObject *self, void *at) { return PyLong_FromUnsignedLongLong(u64(AT(self, at))); }
static PyObject *get_i64(PyObject *self, void *at) { return PyLong_FromLongLong((long long)u64(AT(self, at))); }
static PyObject *get_u32(PyObject *self, void *at) { return PyLong_FromUnsignedLong(u32(AT(self, at))); }
static PyObject *get_u16(PyObject *self, void *at) { return PyLong_FromLong(u16(AT(self, at))); }
static PyObject *get_u8(PyObject *self, void *at) { return PyLong_FromLong(*AT(self, at)); }
static PyObject *get_bool(PyObject *self, void *at) { return PyBool_FromLong(*AT(self, at)); }


static PyObject *pair(PyObject *client, PyObject *server)
{
    PyObject *both = client && server ? PyTuple_New(2) : NULL;
    if (!both) {
        Py_XDECREF(client);
        Py_XDECREF(server);
        return NULL;
    }
    PyTuple_SetItem(both, 0, client);
    PyTuple_SetItem(both, 1, server);
    return both;
}

static PyObject *get_pair64(PyObject *self, void *at)
{
    const uint8_t *p = AT(self, at);
    return pair(PyLong_FromUnsignedLongLong(u64(p)), PyLong_FromUnsignedLongLong(u64(p + SIDE)));
}

static PyObject *get_pair32(PyObject *self, void *at)
{
    const uint8_t *p = AT(self, at);
    return pair(PyLong_FromUnsignedLong(u32(p)), PyLong_FromUnsignedLong(u32(p + SIDE)));
}

static PyObject *get_pair16(PyObject *self, void *at)
{
    const uint8_t *p = AT(self, at);
    return pair(PyLong_FromLong(u16(p)), PyLong_FromLong(u16(p + SIDE)));
}


/* Each octet's digits and the dot after them; filled when the module is loaded. */
static struct { char text[4]; int length; } octets[256];

static void fill_octets(void)
{
    for (int v = 0; v < 256; v++) {
        char text[5];
        octets[v].length = snprintf(text, sizeof text, "%d.", v);
        memcpy(octets[v].text, text, sizeof octets[v].text);
    }
}


/* What an IPv4 packet carried (::ffff:a.b.c.d) as IPv4. */
static PyObject *get_address(PyObject *self, void *at)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *p = AT(self, at);
    char text[INET6_ADDRSTRLEN], *end = text;
    if (((const record_t *)self)->info.tuple.version == 6 || memcmp(p, mapped, sizeof mapped) != 0) {
        inet_ntop(AF_INET6, p, text, sizeof text);
        return PyUnicode_FromString(text);
    }
    for (int i = 12; i < 16; i++) {
        memcpy(end, octets[p[i]].text, sizeof octets->text);
        end += octets[p[i]].length;
    }
    return PyUnicode_FromStringAndSize(text, end - 1 - text);
}


static PyObject *get_record(PyObject *self, void *unused)
{
    (void)unused;
    return PyBytes_FromStringAndSize((const char *)AT(self, 0), sizeof(smos_flow_info_t));
}


static PyObject *get_hashes(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *hashes = ((record_t *)self)->hashes;
    Py_INCREF(hashes);
    return hashes;
}


#define FIELD(name, kind, member, doc) {name, get_##kind, NULL, doc, (void *)offsetof(smos_flow_info_t, member)}
#define PAIR(name, kind, member, doc) FIELD(name, kind, side[0].member, doc)

static PyGetSetDef fields[] = {
    {"_record", get_record, NULL, NULL, NULL},
    {"_hashes", get_hashes, NULL, NULL, NULL},
    FIELD("handle", u64, flow, "The engine's handle of the flow: unique in its worker while the capture is read."),
    FIELD("proto_number", u8, tuple.proto, "The IP protocol's number."),
    FIELD("version", u8, tuple.version, "4 or 6."),
    FIELD("client", address, tuple.src, "The client's address as text."),
    FIELD("client_port", u16, tuple.sport, "The client's port."),
    FIELD("server", address, tuple.dst, "The server's address as text."),
    FIELD("server_port", u16, tuple.dport, "The server's port."),
    FIELD("start_ns", i64, start_ns, "Time of the first packet in nanoseconds since the epoch."),
    FIELD("end_ns", i64, end_ns, "Time of the last packet in nanoseconds since the epoch."),
    PAIR("packets", pair64, packets, "Packets of each end."),
    PAIR("payload_bytes", pair64, payload_bytes, "Transport payload by the headers, retransmissions included."),
    PAIR("wire_bytes", pair64, wire_bytes, "Bytes of the frames."),
    PAIR("stream_bytes", pair64, stream_bytes, "Bytes delivered in order."),
    PAIR("stream_span", pair64, stream_span, "Distance in sequence space (Zeek's orig_bytes and resp_bytes)."),
    PAIR("missing_bytes", pair64, missing_bytes, "Bytes that the peer acknowledged and the capture does not have."),
    PAIR("retransmits", pair32, retransmits, "Segments that repeat what was sent before."),
    PAIR("out_of_order", pair32, out_of_order, "Segments that came after later ones."),
    PAIR("overlaps_conflicting", pair32, overlaps_conflicting, "Segments that carried other bytes for a place that had been sent before."),
    PAIR("zero_window_ms", pair32, zero_window_ms, "Time with a window of zero."),
    PAIR("rtt_handshake_us", pair32, rtt_handshake_us, "From this end's SYN or SYN/ACK to its acknowledgement; 0 unknown."),
    PAIR("rtt_min_us", pair32, rtt_min_us, "The least round trip of data; 0 unknown."),
    PAIR("mss", pair16, mss, "As announced; 0 if not."),
    FIELD("midstream", bool, midstream, "No SYN was seen."),
    FIELD("anomalies", u32, anomalies, "How many anomalies were raised on the flow."),
    {NULL, NULL, NULL, NULL, NULL},
};


/* ---- the type ---- */

static PyObject *allocate(PyTypeObject *type, allocfunc alloc, const void *info, PyObject *hashes)
{
    record_t *r = (record_t *)alloc(type, 0);
    if (!r) return NULL;
    memcpy(&r->info, info, sizeof r->info);
    Py_INCREF(hashes);
    r->hashes = hashes;
    return (PyObject *)r;
}


static PyObject *make_one(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"record", "hashes", NULL};
    Py_buffer record;
    PyObject *hashes = Py_None, *made = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "y*|O:Flow", names, &record, &hashes)) return NULL;
    if (record.len == sizeof(smos_flow_info_t))
        made = allocate(type, (allocfunc)PyType_GetSlot(type, Py_tp_alloc), record.buf, hashes);
    else
        PyErr_Format(PyExc_ValueError, "a flow record has %zu bytes, not %zd", sizeof(smos_flow_info_t), record.len);
    PyBuffer_Release(&record);
    return made;
}


static void destroy(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_DECREF(((record_t *)self)->hashes);
    release(self);
    Py_DECREF(type);
}


static PyType_Slot slots[] = {
    {Py_tp_doc, "The record of a flow; each field is made when it is asked for. Pairs are (client, server)."},
    {Py_tp_new, make_one},
    {Py_tp_dealloc, destroy},
    {Py_tp_getset, fields},
    {0, NULL},
};

static PyType_Spec spec = {"shardmos._record.FlowRecord", sizeof(record_t), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};


/* ---- a batch: a sequence of flows, each made when the loop comes to it, where the memory of the one before, just dropped, is still in the cache ---- */

typedef struct batch {
    PyObject_HEAD
    PyTypeObject *flow;
    allocfunc alloc;
    PyObject *records; /* bytes */
    const smos_flow_info_t *first;
    Py_ssize_t count;
} batch_t;

static Py_ssize_t batch_length(PyObject *self) { return ((const batch_t *)self)->count; }


static PyObject *batch_item(PyObject *self, Py_ssize_t i)
{
    const batch_t *b = (const batch_t *)self;
    if (i < 0 || i >= b->count) return PyErr_SetString(PyExc_IndexError, "no such flow in the batch"), NULL;
    return allocate(b->flow, b->alloc, b->first + i, Py_None);
}


static void batch_destroy(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_XDECREF(((batch_t *)self)->records);
    Py_XDECREF((PyObject *)((batch_t *)self)->flow);
    release(self);
    Py_DECREF(type);
}


static PyType_Slot batch_slots[] = {
    {Py_tp_doc, "The flows of a batch of records, each made when it is asked for."},
    {Py_tp_dealloc, batch_destroy},
    {Py_sq_length, batch_length},
    {Py_sq_item, batch_item},
    {Py_tp_iter, PySeqIter_New},
    {0, NULL},
};

static PyType_Spec batch_spec = {"shardmos._record.Batch", sizeof(batch_t), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, batch_slots};


/* ---- the module ---- */

static PyObject *make_batch(PyTypeObject *type, PyObject *flow, PyObject *records)
{
    char *data;
    Py_ssize_t bytes;
    if (PyBytes_AsStringAndSize(records, &data, &bytes) < 0) return NULL;
    if (bytes % (Py_ssize_t)sizeof(smos_flow_info_t)) return PyErr_Format(PyExc_ValueError, "%zd bytes are no whole number of flow records", bytes);
    batch_t *b = (batch_t *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!b) return NULL;
    Py_INCREF(flow);
    b->flow = (PyTypeObject *)flow;
    b->alloc = (allocfunc)PyType_GetSlot(b->flow, Py_tp_alloc);
    Py_INCREF(records);
    b->records = records;
    b->first = (const smos_flow_info_t *)data;
    b->count = bytes / (Py_ssize_t)sizeof(smos_flow_info_t);
    return (PyObject *)b;
}


static PyObject *split(PyObject *module, PyObject *args)
{
    PyObject *flow, *records, *made = NULL;
    if (!PyArg_ParseTuple(args, "O!S:split", &PyType_Type, &flow, &records)) return NULL;
    PyObject *base = PyObject_GetAttrString(module, "FlowRecord"), *type = PyObject_GetAttrString(module, "Batch");
    if (base && type && !PyType_IsSubtype((PyTypeObject *)flow, (PyTypeObject *)base))
        PyErr_SetString(PyExc_TypeError, "flows are made of a subclass of FlowRecord");
    else if (base && type)
        made = make_batch((PyTypeObject *)type, flow, records);
    Py_XDECREF(base);
    Py_XDECREF(type);
    return made;
}


static int add_type(PyObject *module, const char *name, PyType_Spec *of)
{
    PyObject *type = PyType_FromSpec(of);
    if (!type) return -1;
    int status = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return status;
}


static int fill(PyObject *module)
{
    fill_octets();
    return add_type(module, "FlowRecord", &spec) < 0 ? -1 : add_type(module, "Batch", &batch_spec);
}


static PyMethodDef functions[] = {
    {"split", split, METH_VARARGS, "split(type, records): a batch of flows of that type, one for each record."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot steps[] = {{Py_mod_exec, fill}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "shardmos._record", .m_methods = functions, .m_slots = steps};

PyMODINIT_FUNC PyInit__record(void) { return PyModuleDef_Init(&definition); }
