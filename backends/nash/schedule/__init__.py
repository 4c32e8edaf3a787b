"""Tasks for the unit queues in one global order, and the buffers they use: `schedule(graph, plan, march) -> Schedule`."""

from backends.nash.schedule.generate import schedule
from backends.nash.schedule.tasks import Buffer, Region, Schedule, Task

__all__ = ["Buffer", "Region", "Schedule", "Task", "schedule"]
