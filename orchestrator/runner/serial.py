"""Runs tasks in this process, one after the other; a debugger works, and a bug is raised where it happened."""

from orchestrator.runner.base import Driver
from orchestrator.runner.datasets import NodeDatasets
from orchestrator.runner.limits import Limits
from orchestrator.runner.task import Workplace
from orchestrator.runner.work import execute


class SerialRunner:
    """One worker: this process."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    def run(self, driver: Driver) -> None:
        """Run until nothing is left or the driver drains."""
        driver.begin(workers=1)
        datasets, limits = NodeDatasets(self._place.data_root), Limits()
        while (task := driver.take()) is not None:
            execute(task, self._place, datasets, driver.commit, limits, reraise=True)
