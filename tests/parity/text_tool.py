# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine's text and picture code, in a process of its own."""

import json
import os
import pathlib
import subprocess


class Tool:
    def __init__(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        path = os.environ.get("VLM_TEXT_TOOL", str(root / "build" / "tests" / "unit" / "text-tool"))
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8")

    def ask(self, op, **arguments):
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the tool ended with status {self.process.wait()} at {op}"
        return json.loads(line)

    def must(self, op, **arguments):
        reply = self.ask(op, **arguments)
        assert "error" not in reply, reply["error"]
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()
