"""Lists the flows of a capture: python examples/list_flows.py trace.pcap"""

import sys

import shardmos as sm

for flow in sm.flows(sys.argv[1:] or ["-"]):
    print(flow.proto, flow.client_endpoint, flow.server_endpoint, flow.payload_bytes, flow.end_reason)
