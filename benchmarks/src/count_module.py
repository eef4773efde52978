"""Pushed by control.py: called once per connection, so that Python is no bottleneck of the workers."""

import shardmos as sm


class CountPython(sm.Middlebox):
    @sm.on(sm.CONN_SETUP)
    def setup(self, flow):
        flow.state.seen = 0
