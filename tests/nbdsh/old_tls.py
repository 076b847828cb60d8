"""Begins TLS of one version, by OpenSSL, behind STARTTLS. Exit status 3: the server refused that version."""

import socket
import ssl
import struct
import sys

path, version = sys.argv[1], ssl.TLSVersion[sys.argv[2]]

connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(path)
assert connection.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC"
connection.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 5, 0))
_, option, kind, length = struct.unpack(">QIII", connection.recv(20, socket.MSG_WAITALL))
assert (option, kind, length) == (5, 1, 0), "STARTTLS was refused"

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
# What OpenSSL itself would refuse to try, it tries on the lowest level.
context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = context.maximum_version = version
try:
    with context.wrap_socket(connection) as encrypted:
        print(encrypted.version())
except ssl.SSLError as error:
    print(error, file=sys.stderr)
    # The server has to say so, by an alert; any other failure may be one of this side.
    sys.exit(3 if "ALERT" in str(error).upper() else 1)
