"""Parts that behave in a known way, each a function `measure` behind a name of its own."""

import os
import subprocess
import sys
import time

#: What a process of the hanging part writes its number to.
CHILD = "child"


def measure(report, *, rehearse, folder):
    """Behaves as the file `behaviour` in the folder says."""
    behaviour = (folder / "behaviour").read_text()
    report.add("before", {"rehearse": rehearse})
    report.attempt("error", lambda: {"value": 1 // 0})
    if behaviour == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / CHILD).write_text(str(child.pid))
        time.sleep(600)
    if behaviour == "crash":
        os.abort()
    if behaviour == "raise":
        raise RuntimeError("the device has gone")
    report.add("after", {"value": 1})
