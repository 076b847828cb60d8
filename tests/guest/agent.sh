#!/bin/sh
# Runs inside a guest, on its second serial port: takes commands from the test, one in each line, and answers each with
# its exit status and its output (the other end is tests/src/guest/agent.rs).
#
#   -> NUMBER COMMAND             the command for `sh`, each byte as an escape for printf (\0101)
#   <- done NUMBER STATUS OUTPUT  standard output and standard error together, in hexadecimal
#
# The directory for its files is in memory: it works while the guest's disks do not.

port=${1:-/dev/ttyS1}
files=/run/sterna
# More than a test looks at; a command that says more has its end cut off.
longest_output_bytes=1048576

mkdir -p "$files"
exec <>"$port" >&0
stty raw -echo
echo "ready"
while read -r number command; do
    printf '%b' "$command" >"$files/command"
    sh "$files/command" >"$files/output" 2>&1 </dev/null
    status=$?
    output=$(head -c "$longest_output_bytes" "$files/output" | od -An -v -tx1 | tr -d ' \n')
    echo "done $number $status $output"
done
