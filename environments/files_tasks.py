"""Tasks in a small file tree: what is there, what is asked for, and what has to be there in the end."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Tree = dict[str, str]
"""Path → text. A folder exists as long as it holds a file."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STEMS = _words(
    "agenda album bill budget cards chart contract diary draft essay events form guests guide hours ideas index intro "
    "invoice items labels letter lines list log map menu names notes offer order photo plan poem prices profile quiz "
    "rates recipe report rooms rules scores script sales sizes songs stats story survey table tasks team terms tickets "
    "times tour trip visit words"
)
FOLDERS = _words(
    "archive backup bank bin books cache club data desk docs drafts family garden home inbox lab legal music office "
    "old parts photos private public school shared shop sport store team travel work"
)
ENDINGS = (".txt", ".md", ".csv", ".log", ".tmp", ".html", ".json", ".dat")
VERBS = ("buy", "sell", "bring", "send", "fetch", "clean", "paint", "check", "repair", "order", "return", "wrap")
THINGS = _words(
    "anchor basket blanket bottle bucket camera candle carpet curtain drum engine feather fridge guitar hammer helmet "
    "jacket kettle ladder lantern mattress mirror needle oven pillow piano radio ribbon saddle scooter shovel sofa "
    "teapot trumpet umbrella vase violin wagon wallet whistle"
)
COLOURS = ("red", "green", "blue", "white", "black", "brown", "old", "new", "small", "big")
TOP = ""
"""The top folder."""


@dataclass(frozen=True)
class Scene:
    """A goal, the files at first, and the files that solve it."""

    goal: str
    files: Tree
    wanted: Tree
    solvable: bool = True
    """False where somebody only looks around."""


class Draw:
    """Names and texts drawn without repetition, so that everything in a scene can be told apart."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._stems = rng.sample(STEMS, len(STEMS))
        self._folders = rng.sample(FOLDERS, len(FOLDERS))
        self._things = rng.sample(THINGS, len(THINGS))

    def name(self, ending: str = "") -> str:
        return self._stems.pop() + (ending or self.rng.choice(ENDINGS))

    def folder(self) -> str:
        return self._folders.pop()

    def thing(self) -> str:
        return self._things.pop()

    def line(self, thing: str = "") -> str:
        return f"{self.rng.choice(VERBS)} the {self.rng.choice(COLOURS)} {thing or self.thing()}"

    def files(self, folder: str, count: int, endings: Sequence[str] = ENDINGS) -> Tree:
        """`count` files of one line each in a folder."""
        return {_join(folder, self.name(self.rng.choice(endings))): self.line() for _ in range(count)}

    def tree(self, top: int = 3) -> tuple[Tree, list[str]]:
        """`top` files in the top folder and two folders with one or two files; returns the folders, too."""
        folders = [self.folder(), self.folder()]
        files = self.files(TOP, top)
        for folder in folders:
            files |= self.files(folder, self.rng.randint(1, 2))
        return files, folders

    def said(self, *wordings: str) -> str:
        return self.rng.choice(wordings)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _top(files: Tree) -> list[str]:
    return [path for path in files if "/" not in path]


def _moved(files: Tree, places: dict[str, str]) -> Tree:
    return {places.get(path, path): text for path, text in files.items()}


def _append(draw: Draw) -> Scene:
    files, _ = draw.tree()
    path = draw.rng.choice(_top(files))
    files[path] = "\n".join(draw.line() for _ in range(draw.rng.randint(1, 2)))
    line = draw.line()
    goal = draw.said(
        f'Add the line "{line}" at the end of "{path}".',
        f'Append "{line}" to "{path}" as a new line.',
        f'Put the line "{line}" below the text of "{path}".',
    )
    return Scene(goal, files, {**files, path: f"{files[path]}\n{line}"})


def _collect(draw: Draw) -> Scene:
    files, folders = draw.tree(top=2)
    ending = draw.rng.choice(ENDINGS)
    files |= draw.files(TOP, 1, [other for other in ENDINGS if other != ending])
    files |= draw.files(TOP, draw.rng.randint(1, 2), [ending])
    folder = draw.rng.choice(folders)
    goal = draw.said(
        f'Move all "{ending}" files of the top folder into the folder "{folder}".',
        f'Collect the "{ending}" files of the top folder in "{folder}".',
        f'Every "{ending}" file of the top folder belongs in "{folder}"; move them there.',
    )
    return Scene(goal, files, _moved(files, {p: f"{folder}/{p}" for p in _top(files) if p.endswith(ending)}))


def _copy(draw: Draw) -> Scene:
    files, folders = draw.tree()
    path, folder = draw.rng.choice(_top(files)), draw.rng.choice(folders)
    goal = draw.said(
        f'Copy "{path}" into the folder "{folder}".',
        f'Put a copy of "{path}" into "{folder}".',
        f'Keep "{path}" and make a copy of it in "{folder}".',
    )
    return Scene(goal, files, {**files, f"{folder}/{path}": files[path]})


def _count(draw: Draw) -> Scene:
    files, folders = draw.tree()
    folder, path = draw.rng.choice(folders), draw.name()
    files |= draw.files(folder, draw.rng.randint(0, 4))
    number = sum(other.startswith(f"{folder}/") for other in files)
    goal = draw.said(
        f'Count the files in the folder "{folder}" and write the number into a new file "{path}".',
        f'Make a file "{path}" with the number of files in "{folder}".',
        f'How many files are in "{folder}"? Write it into a new file "{path}".',
    )
    return Scene(goal, files, {**files, path: str(number)})


def _delete(draw: Draw) -> Scene:
    files, folders = draw.tree()
    folder = draw.rng.choice(folders)
    ending = draw.rng.choice(ENDINGS)
    files |= draw.files(folder, 1, [other for other in ENDINGS if other != ending])
    files |= draw.files(folder, draw.rng.randint(1, 2), [ending])
    gone = [path for path in files if path.startswith(f"{folder}/") and path.endswith(ending)]
    goal = draw.said(
        f'Remove all "{ending}" files from the folder "{folder}".',
        f'Delete every "{ending}" file in "{folder}".',
        f'Clear the folder "{folder}" of its "{ending}" files.',
    )
    return Scene(goal, files, {path: text for path, text in files.items() if path not in gone})


def _find(draw: Draw) -> Scene:
    files, folders = draw.tree()
    home, target = draw.rng.sample([*folders, TOP], 2)
    target = target or draw.folder()
    path, thing = _join(home, draw.name()), draw.thing()
    files[path] = draw.line(thing)
    goal = draw.said(
        f'Move the file that holds the word "{thing}" into the folder "{target}".',
        f'Find the file about the "{thing}" and put it into "{target}".',
        f'One file speaks of a "{thing}"; move it into "{target}".',
    )
    return Scene(goal, files, _moved(files, {path: f"{target}/{path.rpartition('/')[2]}"}))


def _move(draw: Draw) -> Scene:
    files, folders = draw.tree()
    path, folder = draw.rng.choice(_top(files)), draw.rng.choice([*folders, draw.folder()])
    goal = draw.said(
        f'Move "{path}" into the folder "{folder}".',
        f'Put the file "{path}" into "{folder}".',
        f'The file "{path}" belongs in "{folder}"; move it there.',
    )
    return Scene(goal, files, _moved(files, {path: f"{folder}/{path}"}))


def _rename(draw: Draw) -> Scene:
    files, _ = draw.tree()
    path = draw.rng.choice(_top(files))
    name = draw.name("." + path.rpartition(".")[2])
    goal = draw.said(
        f'Rename "{path}" to "{name}".',
        f'Change the name of "{path}" to "{name}".',
        f'Give the file "{path}" the new name "{name}".',
    )
    return Scene(goal, files, _moved(files, {path: name}))


def _swap(draw: Draw) -> Scene:
    files, _ = draw.tree()
    one, other = draw.rng.sample(_top(files), 2)
    goal = draw.said(
        f'Swap the names of "{one}" and "{other}".',
        f'Let the files "{one}" and "{other}" trade names.',
        f'Exchange the names of "{one}" and "{other}".',
    )
    return Scene(goal, files, _moved(files, {one: other, other: one}))


def _write(draw: Draw) -> Scene:
    files, folders = draw.tree()
    path, text = _join(draw.rng.choice([*folders, TOP]), draw.name()), draw.line()
    goal = draw.said(
        f'Write "{text}" into a new file "{path}".',
        f'Create the file "{path}" with the text "{text}".',
        f'Make a file "{path}" that says "{text}".',
    )
    return Scene(goal, files, {**files, path: text})


_SCENES: dict[str, Callable[[Draw], Scene]] = {
    "append": _append,
    "collect": _collect,
    "copy": _copy,
    "count": _count,
    "delete": _delete,
    "find": _find,
    "move": _move,
    "rename": _rename,
    "swap": _swap,
    "write": _write,
}
FAMILIES = tuple(sorted(_SCENES))


def scene(family: str, seed: int) -> Scene:
    """The task of a family at a seed; always the same one."""
    return _SCENES[family](Draw(random.Random(f"{family}@{seed}")))
