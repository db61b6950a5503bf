"""Errors a user can do something about.

Four kinds of trouble, four ways out:

* **bad input** (config, unknown names, missing parts, a spent budget) raises a `TutelageError`: one
  clear line, exit code 2, nothing lost;
* **a bad action** by a policy is a `Diagnosis` on the step, never an exception;
* **a broken episode** (page crash) raises `EnvironmentBroken` inside the runner, which
  records it on that one trajectory and goes on;
* **programming errors** propagate.
"""


class TutelageError(Exception):
    """Root of all errors with a message meant for the user."""


class ConfigError(TutelageError):
    """The configuration makes no sense; the message names the key and what to change."""


class MemoryShort(ConfigError):
    """Less memory is free than the configured work needs. The message says what needs less; later more may be free."""


class UnknownName(TutelageError):
    """A name that nothing is registered under; the message lists what exists."""


class MissingPart(TutelageError):
    """Something has to be installed first; the message gives the command."""


class BudgetSpent(TutelageError):
    """A hard limit on calls, tokens or money was reached; everything so far is saved."""


class RecordError(TutelageError):
    """The record cannot be opened or does not hold what was asked for."""


class EnvironmentBroken(TutelageError):
    """The environment failed through no fault of the agent; costs one episode."""


class PolicyFailed(TutelageError):
    """The policy could not answer after all retries."""


class ProviderRefused(BudgetSpent, PolicyFailed):
    """A provider that would refuse every call: no key, a wrong one, a model it does not have. The work stops as on a
    spent budget, at once and with everything so far saved."""


class MemoryBusy(TutelageError):
    """Another process holds the memory index; the message names it."""


class JudgeUnfit(TutelageError):
    """A judge's measured precision is too low for it to filter, and going on would cost money."""


class DesignRefused(TutelageError):
    """A designed task that cannot be played or checked; the message is for its designer."""


class RequestRefused(TutelageError):
    """A request to the server that cannot be answered as asked; the message is for who sent it."""


class RequestTooLong(RequestRefused):
    """The messages leave no room for a reply within what the student takes."""


class WorkspaceBusy(TutelageError):
    """Another process runs a cycle in this workspace; the message names it."""
