"""A workspace: one folder with the record, the memory index and the students, opened by a config."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.config import (
    CONFIG_FILE,
    INDEX,
    CassetteConfig,
    Config,
    EnvironmentConfig,
    MemoryConfig,
    TrustConfig,
    load_config,
)
from tutelage.environments.suite import Suite
from tutelage.errors import ConfigError
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.types import Policy
from tutelage.usage import UsageLog

if TYPE_CHECKING:
    from tutelage.cassette import Cassette
    from tutelage.llm import LLM
    from tutelage.memory.store import MemoryStore


ANY_EXPERT = "expert/*"
"""Model string for the scripted expert of each environment."""
CREATIVE = ("teacher", "persona", "designer")
"""Roles that answer with `teacher.temperature`; the others are to be reproducible."""


def find_config(
    path: Path | None, overrides: list[str], *, existing: bool = False, environments: Sequence[str] = ()
) -> Config:
    """The config of a command: from a TOML file, or else the one the workspace was last used with.

    Args:
        environments: names that replace the configured environments; one that is configured keeps its settings.

    Raises:
        ConfigError: nonsense in the config, or no workspace there although one must exist.
    """
    config = load_config(path, overrides)
    stored = config.workspace / CONFIG_FILE
    if path is None and stored.exists():
        config = load_config(stored, overrides)
    if existing and not stored.exists():
        raise ConfigError(
            f"there is no workspace at {config.workspace}; make one with `tutelage run --config FILE`, "
            "or name another with --set workspace=DIR"
        )
    if environments:
        configured = {item.name: item for item in config.environments}
        chosen = tuple(configured.get(name) or EnvironmentConfig(name=name) for name in environments)
        config = config.model_copy(update={"environments": chosen})
    return config


class Workspace:
    """Opens what a job needs, each part only when it is asked for."""

    def __init__(self, config: Config, *, remember: bool = True):
        """Open or make it; `remember` keeps `config` for later commands that name none (a new workspace always does).

        Raises:
            ConfigError, UnknownName: an environment or its families do not exist.
            RecordError: the record cannot be opened, or `config` is to be kept and the runs here are another tenant's.
        """
        self.config = config
        self.folder: Path = config.workspace
        self.suite = Suite.open([(item.name, item.families, item.settings) for item in config.environments])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = Record.open(self.folder, tenant=config.memory.tenant)
        try:
            if remember:
                self.record.claim()
            if remember or not (self.folder / CONFIG_FILE).exists():
                (self.folder / CONFIG_FILE).write_text(_lasting(config).model_dump_json(indent=2))
        except BaseException:
            self.record.close()
            raise

    @cached_property
    def memory(self) -> "MemoryStore":
        from tutelage.memory.store import MemoryStore

        return MemoryStore(self.record, self.folder / INDEX, self._memory_config)

    @cached_property
    def trust(self) -> TrustConfig:
        """How far words are trusted: as configured, else as the classes of the environments in use say themselves."""
        return self._memory_config.trust

    @cached_property
    def _memory_config(self) -> MemoryConfig:
        from tutelage.memory.trust import with_declared

        return with_declared(self.config)

    @cached_property
    def trained_on(self) -> Suite:
        """The environments whose episodes may make training rows.

        Raises:
            ConfigError: none of them is trusted enough.
        """
        from tutelage.memory.trust import of_environment

        names = [name for name in self.suite.names if of_environment(name, self.trust) >= self.trust.threshold]
        if not names:
            first = self.suite.names[0]
            raise ConfigError(
                f"no environment here is trusted enough to train on ({', '.join(self.suite.names)}); if what its pages "
                f"or tools say was not written by strangers, set memory.trust.environments.{first} = 1.0"
            )
        return self.suite.only(environments=names)

    @cached_property
    def usage(self) -> UsageLog:
        """What LLM calls have cost in this workspace; goes on from where the last command left off."""
        return UsageLog(self.record.put, self.record.items("usage"))

    @cached_property
    def cassette(self) -> "Cassette | None":
        """Where the exchanges of all roles are kept, and taken from, if the config names a file."""
        from tutelage.cassette import Cassette

        config = self.config.cassette
        return None if config.path is None else Cassette(config.path, config.mode)

    def llm(self, role: str, model: str = "") -> "LLM":
        """The model that plays `role` (``teacher``, ``judge``, ``distiller``, ``persona``, ``designer`` …), or another
        one in that role."""
        from tutelage.llm import LLM

        teacher = self.config.teacher
        votes = {"judge": teacher.votes, "feedback": self.config.serve.learning.votes}
        varied = role in CREATIVE or votes.get(role, 1) > 1  # a vote repeated is no second vote
        return LLM(
            model or teacher.model_for(role),
            role=role,
            usage=self.usage,
            budget=self.config.budget,
            temperature=teacher.temperature if varied else 0.0,
            max_tokens=teacher.max_tokens,
            concurrency=teacher.concurrency,
            retries=teacher.retries,
            timeout=teacher.timeout,
            prompt_cache=teacher.prompt_cache,
            cassette=self.cassette,
        )

    def acting(self, model: str = "") -> Policy:
        """A language model as a policy (default: the teacher); ``expert/*`` is each environment's own expert."""
        from tutelage.agents.experts import expert_names
        from tutelage.agents.llm_policy import LLMPolicy
        from tutelage.agents.per_environment import PerEnvironment

        model = model or self.config.teacher.model
        if model != ANY_EXPERT:
            return LLMPolicy(self.llm("teacher", model), native_tools=self.config.teacher.tools == "native")
        names = [name for name in self.suite.names if name in expert_names()]
        return PerEnvironment({name: LLMPolicy(self.llm("teacher", f"expert/{name}")) for name in names})

    def annotator(self) -> Policy:
        """The teacher as it does designed tasks: with a first thought of its own, if that is asked for."""
        from tutelage.agents.first_thought import FirstThought

        teacher, llm = self.acting(), self.llm("teacher")
        return FirstThought(teacher, llm) if self.config.teacher.first_thought and not llm.embedded else teacher

    def clumsy_teacher(self) -> Policy:
        """The teacher with injected mistakes."""
        from tutelage.agents.mistakes import Mistaken

        return Mistaken(self.acting(), self.config.collect.mistake_rate, self.config.seed)

    def oracle(self) -> Policy:
        """Replay of the known solutions.

        Raises:
            ConfigError: no environment here has them.
        """
        from tutelage.agents.oracle import Oracle

        if not self.suite.with_gold:
            raise ConfigError(f"none of {', '.join(self.suite.names)} keeps solutions, so the oracle cannot act there")
        return Oracle()

    @property
    def taught(self) -> Suite:
        """The environments that the teacher can act in: all of them, or those with a scripted expert."""
        from tutelage.agents.experts import expert_names

        if self.config.teacher.model != ANY_EXPERT:
            return self.suite
        return self.suite.only(environments=expert_names())

    def base_student(self) -> Student:
        """Student 0: the configured weights as they come."""
        for student in self.record.students():
            if student.number == 0:
                return student
        base = Student(number=0, stage="base", cycle=0, weights=self.config.student.weights)
        self.record.add_student(base)
        return base

    def current_student(self) -> Student:
        """The promoted student, or the base student while none was promoted."""
        base = self.base_student()
        return self.record.promoted() or base

    def student_policy(self, student: Student) -> Policy:
        """A policy that acts with this student's weights, as evaluation wants it, by the configured engine."""
        from tutelage.training import engines
        from tutelage.training.base import weights_of

        name, trained = weights_of(student, self.folder), bool(self.config.stages)
        return engines.acting(student, self.config.student, name, trained=trained)

    def close(self) -> None:
        if "memory" in self.__dict__:
            self.memory.close()
        if self.__dict__.get("cassette") is not None:
            self.__dict__["cassette"].close()
        self.record.close()


def _lasting(config: Config) -> Config:
    """What later commands go on with: a cassette, and trust in an unmeasured judge, are for one command."""
    annotate = config.annotate.model_copy(update={"trust_judge": False})
    return config.model_copy(update={"cassette": CassetteConfig(), "annotate": annotate})
