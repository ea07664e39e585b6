"""The `calidrift` command: the agent owns it, other packages join commands by entry point.

An entry point of the group `calidrift.commands` names a function `register(table)` that adds
`Command`s to the table. It must import next to nothing: what a command needs is imported when that
command runs, so `calidrift --help` is fast and needs no extra.
"""

from calidrift_agent._command_line._invocation import Invocation, jsonable
from calidrift_agent._command_line._run import main, run
from calidrift_agent._command_line._table import Command, CommandTable

__all__ = ["Command", "CommandTable", "Invocation", "jsonable", "main", "run"]
