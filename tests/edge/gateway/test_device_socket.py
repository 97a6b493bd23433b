from __future__ import annotations

import inspect

from edge.gateway.device_socket import DeviceSocket
from edge.gateway.server import WebSocket


def test_the_real_socket_offers_what_a_session_needs() -> None:
    for name, wanted in vars(DeviceSocket).items():
        if not name.startswith("_"):
            offered = inspect.getattr_static(WebSocket, name)
            assert type(offered) is type(wanted)
            if inspect.isfunction(wanted):
                assert inspect.signature(offered) == inspect.signature(wanted)
