"""Where a recorded run of any agent was lost."""

from firstfault.locate.endpoint import Endpoint
from firstfault.locate.local import LocalModel
from firstfault.locate.locate import Location, locate, locate_async

__all__ = ["Endpoint", "LocalModel", "Location", "locate", "locate_async"]
