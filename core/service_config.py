"""Settings of what runs by itself: jobs, what triggers them, and serving the promoted student."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tutelage.errors import ConfigError
from tutelage.hostile import hostile_text
from tutelage.section import Section


class JobKind(StrEnum):
    """What a job does."""

    COLLECT = "collect"
    ANNOTATE = "annotate"
    EXTRACT = "extract"
    TRAIN = "train"
    EVALUATE = "evaluate"
    CONSOLIDATE = "consolidate"
    DISTILL = "distill"
    """Judge, extract, consolidate, train, evaluate, gate and evidence: one cycle on what is there."""


class JobsConfig(Section):
    """How jobs are run."""

    launcher: str = "local"
    """Where: `local` (a process of this machine), `ray` (Ray Jobs), or a dotted path."""
    ray_address: str = ""
    """Of the Ray dashboard, e.g. ``http://head:8265``; needed by the launcher `ray`."""
    ray_resources: dict[str, Annotated[float, Field(gt=0)]] = {"CPU": 1.0}
    """What Ray sets aside for a job: ``CPU``, ``GPU``, ``memory`` (bytes) and resources of your cluster's own; a job
    computes with as many threads as it has CPUs. With nothing set aside it runs on the head node."""
    ray_python: str = ""
    """Interpreter on the nodes; empty means the path of the one that starts the job."""
    lease: float = Field(60.0, gt=0)
    """Seconds after the last heartbeat from which a job counts as abandoned and is taken over."""
    heartbeat: float = Field(10.0, gt=0)
    """Seconds between signs of life."""
    attempts: int = Field(3, ge=1)
    """How often a job that fails is tried in all."""
    takeovers: int = Field(20, ge=0)
    """How often a job whose worker died is taken over, at most."""
    backoff: float = Field(30.0, ge=0)
    """Seconds before the second attempt; doubles with each further one."""
    backoff_most: float = Field(3600.0, ge=0)
    poll: float = Field(1.0, gt=0)
    """Seconds between looks at the queue."""
    at_once: int = Field(2, ge=1)
    """Jobs of the workspace that run at once, beyond which none is started; what adds to experience or weights runs
    one at a time in any case."""

    @model_validator(mode="after")
    def _lives(self) -> "JobsConfig":
        if self.heartbeat * 3 > self.lease:
            raise ValueError("lease must be at least three heartbeats long, or a busy worker counts as dead")
        if self.launcher == "ray" and not self.ray_address:
            raise ValueError('launcher = "ray" needs jobs.ray_address')
        return self

    def wait(self, before: int) -> float:
        """Seconds from a failure to the next attempt, if it failed so often before that."""
        # Past 2 ** 64 any backoff is more than the most, and the power of some thousand is no number any more.
        return min(self.backoff_most, self.backoff * 2.0 ** min(before, 64))


class TriggerConfig(Section):
    """When a job is started by itself: by the clock or by the data, exactly one of the conditions."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    job: JobKind = JobKind.DISTILL
    params: dict[str, Any] = {}
    """As ``tutelage jobs submit`` takes them."""
    enabled: bool = True
    cron: str = ""
    """Five fields, as in crontab: minute, hour, day of month, month, weekday (0 and 7 are Sunday)."""
    every: float = Field(0.0, ge=0)
    """Seconds."""
    timezone: str = "UTC"
    """IANA name, for `cron`."""
    missed: Literal["once", "skip"] = "once"
    """What becomes of times that passed while nothing ran: one job for all of them, or none."""
    grace: float = Field(60.0, ge=0)
    """Seconds after its time within which a run is not missed yet."""
    overlap: Literal["skip", "queue"] = "skip"
    """What becomes of a firing while the trigger's last job is not over: nothing, or another job that waits behind it;
    never more than one waits."""
    accepted: int = Field(0, ge=0)
    """Accepted trajectories that have come since this trigger last fired."""
    success_below: float = Field(0.0, ge=0, le=1)
    """Success rate of the promoted student over its last `window` episodes outside evaluation, all of them since the
    trigger last fired: fires once the upper bound of its 95 % interval is below this."""
    memory_over: int = Field(0, ge=0)
    """Experiences in use. Fires again once there are more than when it last did, or were fewer than this meanwhile."""
    drift: float = Field(0.0, ge=0, le=1)
    """Total variation distance between the causes diagnosed in the last `window` episodes of the promoted student
    outside evaluation and in its first `window` ones since the trigger last fired."""
    window: int = Field(50, ge=10)
    """Episodes that `success_below` and `drift` look at."""
    cooldown: float = Field(0.0, ge=0)
    """Seconds between two firings of a data trigger, at least."""

    @model_validator(mode="after")
    def _one_condition(self) -> "TriggerConfig":
        conditions = ("cron", "every", "accepted", "success_below", "memory_over", "drift")
        given = [name for name in conditions if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(conditions)}; given: {', '.join(given) or 'none'}")
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> "TriggerConfig":
        from tutelage.jobs.cron import Cron, zone
        from tutelage.jobs.kinds import params_of

        try:
            zone(self.timezone)
            if self.cron:
                Cron(self.cron, self.timezone)
            params_of(self.job, self.params)
        except ConfigError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return self


def _compiles(pattern: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if unit := hostile_text(found):
        raise ValueError(
            f"{pattern!r} would let a caller keep the server busy with a long text of {unit!r}; "
            "bound its repetitions, as in {1,40}, and nest none"
        )
    return pattern


class LearningConfig(Section):
    """What becomes of served conversations."""

    record: bool = True
    """Whether they are kept, redacted; a request can opt out, none can opt in."""
    redact: tuple[Annotated[str, AfterValidator(_compiles)], ...] = ()
    """Regular expressions of one's own, besides keys, tokens, e-mail addresses, card and phone numbers. Refused is one
    whose time grows faster than the text that it looks at."""
    idle: float = Field(900.0, gt=0)
    """Seconds without a request after which a session is over and is judged."""
    votes: int = Field(3, ge=1, le=15)
    """Of the judge, per turn; no clear majority is a reward of 0."""
    retention_days: float = Field(0.0, ge=0)
    """Days after which served conversations are forgotten; 0 means never."""


class ServeConfig(Section):
    """How the promoted student answers requests."""

    engine: Literal["transformers", "vllm", "upstream"] = "transformers"
    upstream: str = ""
    """LiteLLM model string that answers with ``engine = "upstream"``."""
    max_new_tokens: int = Field(256, ge=1)
    """Where a request names no limit; also the most that one may ask for."""
    max_length: int = Field(4096, ge=64)
    """Tokens of a conversation with its reply; a model that takes fewer sets the limit itself."""
    concurrency: int = Field(64, ge=1)
    """Requests under way at once; one more is told to come back."""
    batch: int = Field(16, ge=1)
    """Sequences generated together."""
    per_minute: int = Field(0, ge=0)
    """Requests per key and minute; 0 means no limit."""
    body_bytes: int = Field(1_000_000, ge=1000)
    memory: bool = False
    """Whether experiences are put into requests that do not say."""
    guardrails: bool = True
    """Whether tool calls that a guardrail forbids are held back."""
    retries: int = Field(1, ge=0)
    """How often a reply with such a call is generated anew, with the guardrail's remedy, before it is refused."""
    environment: str = Field("served", pattern=r"^[a-z][a-z0-9_-]*$")
    """Name under which served conversations are filed, and whose experiences are injected if a request names none."""
    drain: float = Field(120.0, ge=0)
    """Seconds that requests on the old version get after a swap."""
    learning: LearningConfig = LearningConfig()

    @model_validator(mode="after")
    def _has_upstream(self) -> "ServeConfig":
        if (self.engine == "upstream") != bool(self.upstream):
            raise ValueError('upstream is the model for engine = "upstream", and only for it')
        return self
