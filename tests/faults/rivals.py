"""Payment without what keeps its jobs to one process, and with its close twice in each: `python -m tests.faults.rivals run`.

What is left to keep them apart is the sweep itself: rows that others hold are passed by, and only who still owes is forfeited.
"""

from __future__ import annotations

from services.chassis.cli import main
from services.chassis.jobs import Job
from services.chassis.process import Process
from services.payment.app import create_app
from services.payment.settings import Settings


def create_rival(settings: Settings) -> Process:
    """The service as it is, but for the locks of its jobs."""
    process = create_app(settings)
    for job in process.jobs.jobs:
        job.exclusive = False
    close = process.jobs.jobs[0]
    process.jobs.jobs += (Job("close-window-again", close.run, every=close.every, exclusive=False),)
    return process


if __name__ == "__main__":
    main(Settings, create_rival)
