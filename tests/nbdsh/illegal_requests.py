"""Requests that are wrong in one way each, on a writable export: each has its error, and the connection goes on."""

import nbd
from common import KIB, MIB, connected, count_refusal, main, refused, still_serves

PATTERN = bytes(range(256)) * 16
UNKNOWN_FLAG = 1 << 14


def prepared(uri, contexts=()):
    h = connected(uri, contexts)
    h.pwrite(PATTERN, 0)
    return h, h.get_size()


def flags_that_are_unknown_or_of_other_commands(uri):
    h, _ = prepared(uri, ["base:allocation"])
    take = lambda *_: 0
    for flags in [UNKNOWN_FLAG, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_REQ_ONE, nbd.CMD_FLAG_FAST_ZERO]:
        refused("EINVAL", h.pread, 512, 0, flags=flags)
        refused("EINVAL", h.pwrite, b"x" * 512, 0, flags=flags)
        refused("EINVAL", h.flush, flags=flags)
        refused("EINVAL", h.trim, 4096, 0, flags=flags)
        refused("EINVAL", h.cache, 4096, 0, flags=flags)
        still_serves(h, PATTERN)
    for flags in [UNKNOWN_FLAG, nbd.CMD_FLAG_DF, nbd.CMD_FLAG_REQ_ONE]:
        refused("EINVAL", h.zero, 4096, 0, flags=flags)
    for flags in [UNKNOWN_FLAG, nbd.CMD_FLAG_DF, nbd.CMD_FLAG_NO_HOLE]:
        refused("EINVAL", h.block_status, 4096, 0, take, flags=flags)
    still_serves(h, PATTERN)
    h.shutdown()


def fua_is_allowed_on_every_command(uri):
    h, _ = prepared(uri, ["base:allocation"])
    fua = nbd.CMD_FLAG_FUA
    assert h.pread(4096, 0, flags=fua) == PATTERN
    h.pwrite(PATTERN, 0, flags=fua)
    h.flush(flags=fua)
    h.cache(4096, 0, flags=fua)
    h.block_status(4096, 0, lambda *_: 0, flags=fua)
    h.trim(4096, 8192, flags=fua)
    h.zero(4096, 8192, flags=fua)
    still_serves(h, PATTERN)
    h.shutdown()


def beyond_the_end(uri):
    h, size = prepared(uri, ["base:allocation"])
    for offset, count in [(size, 1), (size - 1, 2), (size + 4096, 4096), (2**63 - 1, 512), (2**64 - 512, 512)]:
        refused("ENOSPC", h.pwrite, b"x" * count, offset)
        refused("ENOSPC", h.zero, count, offset)
        refused("ENOSPC", h.zero, count, offset, flags=nbd.CMD_FLAG_FAST_ZERO)
        refused("EINVAL", h.pread, count, offset)
        refused("EINVAL", h.trim, count, offset)
        refused("EINVAL", h.cache, count, offset)
        refused("EINVAL", h.block_status, count, offset, lambda *_: 0)
        still_serves(h, PATTERN)
    h.shutdown()


def nothing_is_done_well(uri):
    h, size = prepared(uri, ["base:allocation"])
    for offset in [0, 5, size]:
        assert h.pread(0, offset) == b""
        h.pwrite(b"", offset)
        h.trim(0, offset)
        h.zero(0, offset)
        h.zero(0, offset, flags=nbd.CMD_FLAG_FAST_ZERO)
        h.cache(0, offset)
        refused("EINVAL", h.block_status, 0, offset, lambda *_: 0)
    still_serves(h, PATTERN)
    h.shutdown()


def zeroing_in_every_way(uri):
    h, _ = prepared(uri)
    no_hole, fast, fua = nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO, nbd.CMD_FLAG_FUA
    for flags in [0, no_hole, fast, fua, no_hole | fast, no_hole | fast | fua]:
        h.pwrite(b"\xaa" * 16 * KIB, MIB)
        try:
            h.zero(10000, MIB + 100, flags=flags)
            within = b"\0" * 10000
        except nbd.Error as error:
            assert flags & nbd.CMD_FLAG_FAST_ZERO and error.errno == "ENOTSUP", error
            count_refusal()
            within = b"\xaa" * 10000
        expected = b"\xaa" * 100 + within + b"\xaa" * (16 * KIB - 10100)
        assert h.pread(16 * KIB, MIB) == expected, f"after zeroing with flags {flags:#x}"
    h.shutdown()


def reads_in_one_fragment(uri):
    h, _ = prepared(uri)
    h.trim(MIB, 0)
    h.pwrite(PATTERN, 64 * KIB)
    chunks = []

    def chunk(data, offset, status, _error):
        chunks.append((offset, len(data), status))

    data = h.pread_structured(128 * KIB, 0, chunk, flags=nbd.CMD_FLAG_DF)
    assert len(chunks) == 1, f"a read with DF came in {len(chunks)} chunks"
    assert data == b"\0" * 64 * KIB + PATTERN + b"\0" * (60 * KIB)
    h.pwrite(PATTERN, 0)
    h.shutdown()


def status_without_a_context(uri):
    h, _ = prepared(uri)
    refused("EINVAL", h.block_status, 4096, 0, lambda *_: 0)
    still_serves(h, PATTERN)
    h.shutdown()


def status_of_one_extent(uri):
    h, size = prepared(uri, ["base:allocation", "x-sterna:residency"])
    told = {}

    def extents(context, offset, entries, _error):
        assert offset == 0
        told[context] = entries

    h.block_status(size, 0, extents, flags=nbd.CMD_FLAG_REQ_ONE)
    assert set(told) == {"base:allocation", "x-sterna:residency"}, told
    assert all(len(entries) == 2 and 0 < entries[0] <= size for entries in told.values()), told
    assert told["base:allocation"][1] == 0, "what was written is no hole"
    h.shutdown()


def reads_longer_than_the_largest_payload(uri):
    h, _ = prepared(uri)
    assert len(h.pread(32 * MIB, 0)) == 32 * MIB
    refused("EINVAL", h.pread, 32 * MIB + 1, 0)
    refused("EINVAL", h.pread, 33 * MIB, 0)
    still_serves(h, PATTERN)
    h.shutdown()


def effects_may_be_longer_than_the_largest_payload(uri):
    h, size = prepared(uri)
    h.pwrite(PATTERN, 40 * MIB)
    h.zero(size - MIB, MIB)
    assert h.pread(4096, 40 * MIB) == b"\0" * 4096
    h.pwrite(PATTERN, 40 * MIB)
    h.trim(size - MIB, MIB)
    assert h.pread(4096, 40 * MIB) == b"\0" * 4096, "what was trimmed reads as zeroes here"
    h.cache(size, 0)
    still_serves(h, PATTERN)
    h.shutdown()


main(
    flags_that_are_unknown_or_of_other_commands,
    fua_is_allowed_on_every_command,
    beyond_the_end,
    nothing_is_done_well,
    zeroing_in_every_way,
    reads_in_one_fragment,
    status_without_a_context,
    status_of_one_extent,
    reads_longer_than_the_largest_payload,
    effects_may_be_longer_than_the_largest_payload,
)
