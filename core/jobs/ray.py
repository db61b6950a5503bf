"""Jobs on a Ray cluster, through Ray Jobs.

Ray chooses the node, starts the process there and ends it; nothing is uploaded, so the nodes have Tutelage installed
and see the workspace. What is true about a job is in the record, as with any launcher.
"""

import os
import shlex
import sys
import time
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.config import JobsConfig
from tutelage.errors import ConfigError, MissingPart, TutelageError
from tutelage.jobs.attend import EXECUTE, SHOWN, command, last_lines, output_file, place

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CALL_SECONDS = 30.0
"""How long one call to the cluster may take."""
GRACE = 10
"""Seconds between Ray's asking a job to end and its killing it; Ray wants to know when the job is submitted."""
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ARGUMENTS = {"CPU": "entrypoint_num_cpus", "GPU": "entrypoint_num_gpus", "memory": "entrypoint_memory"}


class RayLauncher:
    """Submits `tutelage.jobs.attend`, which runs the job. The handle is Ray's submission id."""

    name = "ray"

    def __init__(self, config: JobsConfig, workspace: Path, *, program: str = EXECUTE) -> None:
        """`program` is the module that is run.

        Raises:
            MissingPart: Ray is not installed.
            ConfigError: the environment would lead Ray's client to another cluster.
        """
        self._config = config
        self._workspace = workspace.resolve()
        self._program = program
        try:
            import ray.job_submission  # noqa: F401
        except ImportError as error:
            raise MissingPart("the launcher `ray` needs Ray: pip install 'tutelage[ray]'") from error
        for name in _OVERRIDES:
            if os.environ.get(name, config.ray_address) != config.ray_address:
                raise ConfigError(f"Ray's client heeds {name}, not jobs.ray_address = {config.ray_address}: unset it")

    @cached_property
    def _client(self) -> "JobSubmissionClient":
        """Raises ConnectionError or RuntimeError if there is no cluster there."""
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):  # Ray's own waits for ever for a head that does not answer
            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": CALL_SECONDS, **options})

        return Client(self._config.ray_address)

    def start(self, job: str, attempt: int) -> str:
        """Submit the attempt; Ray takes each submission id once.

        Raises:
            TutelageError: the cluster does not answer, or refuses the job, or a folder that it needs is gone.
        """
        handle = f"{job}-{attempt}-{_mark(self._workspace)}"
        python = self._config.ray_python or sys.executable
        try:
            here = ("--cwd", os.getcwd(), "--place", place(self._workspace))
            line = command(
                self._workspace, job, attempt, handle=handle, program=self._program, python=python, options=here
            )
            self._client.submit_job(
                entrypoint=shlex.join(line),
                submission_id=handle,
                runtime_env={"env_vars": {"PYTHONSAFEPATH": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE)}},
                **_set_aside(self._config.ray_resources),
            )
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            if self.alive(handle) is None:  # else it is there already
                raise TutelageError(f"Ray at {self._config.ray_address} does not take job {job}: {error}") from error
        return handle

    def alive(self, handle: str) -> bool | None:
        """Whether it runs, or waits in the cluster; None: the cluster does not answer or does not know it, or it is
        of the workspace that this one was restored or copied from, or of another launcher."""
        if not handle.endswith(_mark(self._workspace)):
            return None
        try:
            return not self._client.get_job_status(handle).is_terminal()
        except (OSError, RuntimeError):
            return None

    def stop(self, handle: str, *, grace: float) -> None:
        """Have Ray end the job; after `GRACE` seconds, whatever `grace`, it kills it and its descendants."""
        if self.alive(handle) is None:
            return
        with suppress(OSError, RuntimeError):
            self._client.stop_job(handle)
        until = time.monotonic() + GRACE + CALL_SECONDS
        while self.alive(handle) and time.monotonic() < until:
            time.sleep(0.1)

    def output(self, handle: str) -> str:
        """The last lines that the job wrote, else what Ray says about it."""
        if not handle.endswith(_mark(self._workspace)):
            return ""
        job, attempt, _ = handle.rsplit("-", 2)
        said = last_lines(output_file(self._workspace, job, int(attempt)), characters=SHOWN)
        if said:
            return said
        with suppress(OSError, RuntimeError):
            details = self._client.get_job_info(handle)
            return (self._client.get_job_logs(handle).strip() or details.message or "")[-SHOWN:]
        return ""


def _mark(folder: Path) -> str:
    """Tells workspaces apart."""
    return sha256(str(folder).encode()).hexdigest()[:8]


def _set_aside(resources: dict[str, float]) -> dict[str, Any]:
    """What `submit_job` is told of resources."""
    known = {_ARGUMENTS[name]: amount for name, amount in resources.items() if name in _ARGUMENTS}
    if "entrypoint_memory" in known:
        known["entrypoint_memory"] = int(known["entrypoint_memory"])
    own = {name: amount for name, amount in resources.items() if name not in _ARGUMENTS}
    return {**known, "entrypoint_resources": own} if own else dict(known)
