"""The tools of the agent in this folder: a register, and a message to people."""

from pathlib import Path


class Register:
    """A number that operations change."""

    def __init__(self):
        self.value = 0

    def add(self, n: int) -> int:
        """Add to the register.

        Args:
            n: how much.
        """
        self.value += n
        return self.value

    def subtract(self, n: int) -> int:
        """Subtract from the register.

        Args:
            n: how much.
        """
        self.value -= n
        return self.value

    def double(self) -> int:
        """Double the register."""
        self.value *= 2
        return self.value


def notify(text: str) -> str:
    """Tell people. Nobody wants to be told again because a run is diagnosed.

    Args:
        text: what to tell.
    """
    with Path("notified.txt").open("a") as file:
        file.write(text + "\n")
    return "sent"
