"""Where a recorded run of any agent was lost."""

from firstfault.locate.endpoint import Endpoint
from firstfault.locate.locate import Location, locate

__all__ = ["Endpoint", "Location", "locate"]
