"""Where a recorded run of any agent was lost."""

from firstfault.locate.locate import Location, locate, locate_async
from firstfault.writers.endpoint import Endpoint
from firstfault.writers.local import LocalModel

__all__ = ["Endpoint", "LocalModel", "Location", "locate", "locate_async"]
