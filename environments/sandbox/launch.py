"""Run as a script by this Python, apart: starts one snippet, tells how it ended, and adopts whatever it leaves behind.

It takes JSON as its only argument. The one who started it kills what is left, and it ends when nothing is.
"""

import ctypes
import json
import os
import subprocess
import sys
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
STARTING = b"\n"
"""Written before the status: from here on the snippet's time counts."""
ENVIRONMENT = {"PATH": "/usr/bin", "LANG": "C.UTF-8"}


def main() -> None:
    given = json.loads(sys.argv[1])
    environment = {**ENVIRONMENT, "HOME": given["folder"], "TMPDIR": given["folder"]}
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if given["landlock"]:
        status = _confined(given, environment)
    else:
        os.write(given["answer"], STARTING)
        status = subprocess.run(given["command"], cwd=given["folder"], env=environment, check=False).returncode
    os.write(given["answer"], str(status).encode())
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _confined(given: dict[str, Any], environment: dict[str, str]) -> int:
    os.environ["HOME"] = given["folder"]  # sandlock asks for it when imported
    import sandlock

    sandbox = sandlock.Sandbox(
        fs_readable=given["readable"],
        fs_writable=[given["folder"]],
        clean_env=True,
        env=environment,
        cwd=given["folder"],
        max_processes=given["processes"],
        no_coredump=True,
    )
    os.write(given["answer"], STARTING)
    result = sandbox.popen(given["command"]).wait()
    return -result.signal if result.signal > 0 else result.exit_code


if __name__ == "__main__":
    main()
