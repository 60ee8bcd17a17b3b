# SPDX-License-Identifier: GPL-2.0
"""What is said to the emulator of a guest itself: its machine protocol (QMP), a command at a time."""

import json
import socket

# Seconds.
LIMIT = 30


class Refused(Exception):
    """The emulator does not do that."""


def path(directory):
    """The emulator's socket for commands."""
    return f"{directory}/qmp"


def command(directory, name, **arguments):
    """The answer to one command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(path(directory))
        lines = connection.makefile("rw")
        # Its greeting; then it wants to hear that this is understood.
        lines.readline()
        for execute, given in (("qmp_capabilities", {}), (name, arguments)):
            lines.write(json.dumps({"execute": execute, "arguments": given}) + "\n")
            lines.flush()
            answer = _answer(lines)
        return answer


def _answer(lines):
    """The next line that is no event."""
    while True:
        line = lines.readline()
        if not line:
            raise Refused("the emulator has ended")
        message = json.loads(line)
        if "error" in message:
            raise Refused(message["error"]["desc"])
        if "return" in message:
            return message["return"]
