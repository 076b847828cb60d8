"""Changes to an export that takes none: each is refused with EPERM, and reading goes on."""

import nbd
from common import connected, main, refused


def every_change_is_refused(uri, looks_writable):
    h = connected(uri, ["base:allocation"])
    assert h.is_read_only() == (looks_writable == "no")
    before = h.pread(4096, 0)
    refused("EPERM", h.pwrite, b"x" * 512, 0)
    refused("EPERM", h.pwrite, b"x" * 512, 0, flags=nbd.CMD_FLAG_FUA)
    refused("EPERM", h.pwrite, b"x" * 512, h.get_size())
    refused("EPERM", h.zero, 4096, 0)
    refused("EPERM", h.zero, 4096, 0, flags=nbd.CMD_FLAG_NO_HOLE)
    refused("EPERM", h.trim, 4096, 0)
    h.flush()
    h.cache(4096, 0)
    h.block_status(4096, 0, lambda *_: 0)
    assert h.pread(4096, 0) == before == b"\x5a" * 4096
    h.shutdown()


main(every_change_is_refused)
