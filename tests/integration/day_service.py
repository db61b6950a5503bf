"""The scheduler of a workspace, with triggers that go by the time a file tells: python day_service.py WORKSPACE FILE

Everything else is as in the service: leases and heartbeats go by this machine's clock.
"""

import sys
from pathlib import Path
from threading import Event

from tutelage.cli.job_queue import dispatcher
from tutelage.config import CONFIG_FILE, load_config
from tutelage.jobs.scheduler import Scheduler


def main(workspace: Path, told: Path) -> None:
    config = load_config(workspace / CONFIG_FILE)
    scheduler = Scheduler(workspace, config, clock=lambda: float(told.read_text()))
    scheduler.dispatcher = dispatcher(scheduler.store, config)
    scheduler.run(Event())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
