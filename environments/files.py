"""Files: a small file tree kept in memory, with goals that are checked against the tree in the end.

Nothing on disk is touched. The task is solved if, upon ``done()``, the tree is exactly the wanted one: an
extra change counts as a wrong end. Writing over a file asks for reading it first, as careful agents do, so
that what was there is never lost unseen.
"""

from typing import Any, ClassVar

from tutelage.designs import Design
from tutelage.environments.base import ActionRefused, Outcome
from tutelage.environments.design import check_form, plain
from tutelage.environments.files_design import GUIDE, designed
from tutelage.environments.files_paths import MOST_FILES, above, check_text, cut, is_file, path_of
from tutelage.environments.files_tasks import FAMILIES, TOP, Scene, Tree, scene
from tutelage.environments.tools import ToolEnvironment, shorten
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Task, Tool

OVER = "The task is over."


def _tool(name: str, description: str, *required: str, optional: tuple[str, ...] = ()) -> Tool:
    """A tool whose arguments are all texts."""
    properties = {argument: {"type": "string"} for argument in (*required, *optional)}
    return Tool(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": list(required)},
    )


TOOLS = (
    _tool("list", "Show the files of a folder.", optional=("folder",)),
    _tool("find", "Show the files that hold a text.", "text"),
    _tool("read", "Show a file.", "file"),
    _tool("write", "Make a file, or replace one that was read.", "file", "text"),
    _tool("move", "Give a file a new path.", "source", "target"),
    _tool("copy", "Copy a file to a new path.", "source", "target"),
    _tool("remove", "Delete a file.", "file"),
    _tool("done", "End the task."),
)


class Files(ToolEnvironment):
    """One small tree at a time; folders come and go with the files in them."""

    name: ClassVar[str] = "files"
    trust: ClassVar[float] = 1.0
    intro: ClassVar[str] = (
        "You look after files. A path is a name or folder/name. "
        'End your reply with one call such as read({"file": "a.txt"}).'
    )
    design_guide: ClassVar[str] = GUIDE

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._files: Tree = {}
        self._seen: set[str] = set()
        """Files whose text the agent knows."""

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return FAMILIES

    @classmethod
    def check_design(cls, design: Design) -> None:
        check_form(cls, design)
        designed(_drawn(design.base), design)

    def start(self, task: Task) -> tuple[str, str]:
        design = self.designs.get(task.id)
        self._scene = _drawn(task) if design is None else designed(_drawn(design.base), design)
        self.offer(TOOLS)
        self._files, self._seen = dict(self._scene.files), set()
        return self._scene.goal, self._list(TOP)

    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if self._scene is None:
            raise EnvironmentBroken("there is no episode; reset the environment first")
        if name == "done":
            solved, credit = self._scene.solvable and self._files == self._scene.wanted, self._credit()
            self._scene = None
            return Outcome(OVER, float(solved), terminated=True, credit=credit)
        result = getattr(self, f"_{name}")(**arguments)
        return Outcome(result, credit=self._credit())

    def _credit(self) -> float:
        """Share of the wanted changes that are made; unwanted ones count against them."""
        assert self._scene is not None
        due = _differences(self._scene.files, self._scene.wanted)
        return max(0.0, 1.0 - _differences(self._files, self._scene.wanted) / due) if due else 0.0

    # -- the tools ------------------------------------------------------------------------------

    def _list(self, folder: str = TOP) -> str:
        path = path_of(folder) if folder.strip(" ./") else TOP
        start = f"{path}/" if path else ""
        inside = [other.removeprefix(start) for other in self._files if other.startswith(start)]
        if path and not inside:
            raise ActionRefused(f'There is no folder "{path}".' if path not in self._files else is_file(path))
        folders = sorted({f"{rest.split('/')[0]}/" for rest in inside if "/" in rest})
        names = sorted(rest for rest in inside if "/" not in rest)
        heading = f'Folder "{path}":' if path else "Top folder:"
        return shorten("\n".join([heading, *folders, *names]))

    def _find(self, text: str) -> str:
        if not text.strip():
            raise ActionRefused("There is nothing to look for; give a word or more.")
        if not plain(text):
            raise ActionRefused("Files hold plain characters and line ends only.")
        found = sorted(path for path, held in self._files.items() if text.lower() in held.lower())
        if not found:
            return f'No file holds "{cut(text)}".'
        return shorten("\n".join([f'Files with "{cut(text)}":', *found]))

    def _read(self, file: str) -> str:
        path = self._there(file)
        self._seen.add(path)
        return f'Text of "{path}":\n{self._files[path]}'

    def _write(self, file: str, text: str) -> str:
        path = self._free(file) if path_of(file) not in self._files else path_of(file)
        if path in self._files and path not in self._seen:
            raise ActionRefused(f'"{path}" exists; read it before you write over it.')
        check_text(text)
        self._files[path] = text
        self._seen.add(path)
        return f'Wrote "{path}":\n{text}'

    def _move(self, source: str, target: str) -> str:
        old, new = self._there(source), self._free(target, moving=path_of(source))
        self._files[new] = self._files.pop(old)
        if old in self._seen:
            self._seen = self._seen - {old} | {new}
        return f'Moved "{old}" to "{new}".'

    def _copy(self, source: str, target: str) -> str:
        old, new = self._there(source), self._free(target, moving=path_of(source))
        self._files[new] = self._files[old]
        self._seen |= {new} if old in self._seen else set()
        return f'Copied "{old}" to "{new}".'

    def _remove(self, file: str) -> str:
        path = self._there(file)
        del self._files[path]
        self._seen.discard(path)
        return f'Removed "{path}".'

    # -- paths ----------------------------------------------------------------------------------

    def _is_folder(self, path: str) -> bool:
        return any(other.startswith(f"{path}/") for other in self._files)

    def _there(self, text: str) -> str:
        """The path of a file that exists."""
        path = path_of(text)
        if path not in self._files:
            folder = self._is_folder(path)
            raise ActionRefused(
                f'"{path}" is a folder; this takes one file.' if folder else f'There is no file "{path}".'
            )
        return path

    def _free(self, text: str, moving: str = "") -> str:
        """A path at which a file can come to be."""
        path = path_of(text)
        if path in self._files:
            raise ActionRefused(f'There is already a file "{path}".')
        if self._is_folder(path):
            inside = f"{path}/{moving.rpartition('/')[2] or 'name'}"
            raise ActionRefused(f'"{path}" is a folder; to put a file into it write "{inside}".')
        taken = next((folder for folder in above(path) if folder in self._files), None)
        if taken is not None:
            raise ActionRefused(is_file(taken))
        if len(self._files) >= MOST_FILES:
            raise ActionRefused(f"There are {MOST_FILES} files already; no more fit.")
        return path


def _drawn(task: Task) -> Scene:
    if task.family not in FAMILIES:
        raise UnknownName(f"unknown files family {task.family!r}; known: {', '.join(FAMILIES)}")
    return scene(task.family, task.seed)


def _differences(one: Tree, other: Tree) -> int:
    """How many paths hold something else, or exist in one only."""
    return sum(one.get(path) != other.get(path) for path in one.keys() | other.keys())
