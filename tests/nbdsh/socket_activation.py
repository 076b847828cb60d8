"""Starts the server itself, as systemd does: the socket is there before the server is."""

import nbd
from common import main


def a_server_takes_the_socket_it_was_started_with(*command):
    h = nbd.NBD()
    h.connect_systemd_socket_activation(list(command))
    h.pwrite(b"\x5a" * 4096, 4096)
    h.flush()
    assert h.pread(8192, 0) == b"\0" * 4096 + b"\x5a" * 4096
    assert h.get_size() == 1 << 20
    h.shutdown()


main(a_server_takes_the_socket_it_was_started_with)
