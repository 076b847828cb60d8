"""What the scripts here share. They speak to a server through libnbd, with its own checks of requests off."""

import sys

import nbd

KIB = 1024
MIB = 1024 * 1024

# How many requests the server has refused; the test compares it with what the server has counted, because an error can
# also come from libnbd itself, which then has sent nothing.
refusals = 0


def count_refusal():
    global refusals
    refusals += 1


def connected(uri, contexts=()):
    """A connection that sends whatever it is told to."""
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    h.connect_uri(uri)
    h.set_strict_mode(0)
    return h


def refused(expected, call, *args, **kwargs):
    """Makes a call that the server has to refuse with this error."""
    try:
        call(*args, **kwargs)
    except nbd.Error as error:
        assert error.errno == expected, f"{call.__name__}{args} {kwargs}: {error.errno}, not {expected}"
        count_refusal()
    else:
        raise AssertionError(f"{call.__name__}{args} {kwargs} was not refused with {expected}")


def still_serves(h, expected):
    """The connection goes on, and nothing of the disk has changed."""
    assert h.pread(len(expected), 0) == expected, "a refused request has changed the disk"


def main(*functions):
    """Runs the functions with the arguments of the command line, each by its name for the log."""
    for function in functions:
        print(function.__name__, flush=True)
        function(*sys.argv[1:])
    print(f"refusals: {refusals}")
