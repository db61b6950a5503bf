"""Tasks in a small database: its tables, what is asked for, and the answer or the tables that solve it.

The right answer is worked out here from the rows themselves, never by running SQL.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

Value = str | int
Row = tuple[Value, ...]


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows, the second is a text, and the third a whole number."""

    name: str
    columns: tuple[str, str, str]
    rows: tuple[Row, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.columns)})"


@dataclass(frozen=True)
class Scene:
    """A goal, the tables at first, and either the answer to it or the tables as they have to be in the end."""

    goal: str
    tables: tuple[Table, ...]
    wanted: tuple[Table, ...]
    answer: Value | None = None
    solvable: bool = True
    """False where somebody only looks around."""


@dataclass(frozen=True)
class World:
    """Two tables; the second column of `things` holds names of rows of `people`."""

    people: Table
    things: Table
    traits: tuple[str, ...]
    items: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Ada Ben Cora Dan Emma Finn Gina Hugo Ida Jack Kim Leo Mia Nora Otto Paul Rosa Sam Tina Udo Vera Will Yara Zoe"
)
CITIES = _words("Oslo Rome Paris Lima Cairo Delhi Tokyo Bern Riga Quito Accra Dublin")
NUMBERS = range(10, 100)
WORLDS = (
    World(
        Table("people", ("name", "city", "age")),
        Table("orders", ("item", "buyer", "price")),
        CITIES,
        _words("lamp chair table sofa clock mirror kettle carpet pillow basket ladder bucket candle blanket"),
    ),
    World(
        Table("members", ("member", "town", "fee")),
        Table("books", ("title", "reader", "pages")),
        CITIES,
        _words("Dune Ivanhoe Ulysses Dracula Hamlet Faust Walden Utopia Candide Beloved Macbeth Persuasion"),
    ),
    World(
        Table("teachers", ("teacher", "subject", "room")),
        Table("courses", ("course", "tutor", "seats")),
        _words("maths music art sport physics history drama biology"),
        _words("chess choir robots pottery yoga cooking poetry sewing dance film debate garden"),
    ),
    World(
        Table("drivers", ("driver", "home", "points")),
        Table("cars", ("car", "owner", "miles")),
        CITIES,
        _words("Fox Lynx Falcon Tiger Comet Rocket Panda Arrow Beetle Mustang Dolphin Raven"),
    ),
    World(
        Table("keepers", ("keeper", "house", "years")),
        Table("animals", ("animal", "carer", "weight")),
        _words("north south east west lake hill"),
        _words("zebra otter camel koala llama lemur moose panther gibbon walrus badger ostrich"),
    ),
    World(
        Table("cooks", ("cook", "country", "hours")),
        Table("dishes", ("dish", "chef", "minutes")),
        _words("Italy Japan India Mexico Greece Peru Kenya Spain"),
        _words("soup pizza curry salad stew pasta sushi tacos risotto omelette pancake goulash"),
    ),
)


class Draw:
    """A filled world, and names that do not occur in it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.world = rng.choice(WORLDS)
        people, self._spare_people = _shuffled(rng, NAMES, rng.randint(4, 6))
        items, self._spare_items = _shuffled(rng, self.world.items, rng.randint(5, 7))
        self.traits = tuple(rng.sample(self.world.traits, 3))
        self.people = _filled(rng, self.world.people, people, self.traits)
        self.things = _filled(rng, self.world.things, items, people[:3])

        self.tables = tuple(rng.sample((self.people, self.things), 2))

    def table(self) -> Table:
        return self.rng.choice(self.tables)

    def row(self, table: Table) -> Row:
        return self.rng.choice(table.rows)

    def new(self, table: Table) -> Row:
        """A row whose name is not in `table` yet."""
        spare = self._spare_people if table is self.people else self._spare_items
        return self.rng.choice(spare), self.text(table), self.number(table)

    def text(self, table: Table) -> str:
        """A text for the second column."""
        return str(self.rng.choice([row[1] for row in table.rows]))

    def number(self, table: Table) -> int:
        """A number that the third column does not hold yet."""
        return self.rng.choice([number for number in NUMBERS if number not in {row[2] for row in table.rows}])

    def asked(self, answer: Value, *wordings: str) -> Scene:
        return Scene(self.rng.choice(wordings), self.tables, self.tables, answer)

    def changed(self, table: Table, change: Callable[[Row], Row | None], *wordings: str, new: Row = ()) -> Scene:
        """A scene in which `table` has to end with its rows changed, or dropped where `change` is None."""
        rows = [row for old in table.rows if (row := change(old)) is not None]
        done = replace(table, rows=(*rows, *([new] if new else [])))
        wanted = tuple(done if other is table else other for other in self.tables)
        return Scene(self.rng.choice(wordings), self.tables, wanted)


def _shuffled(rng: random.Random, words: tuple[str, ...], count: int) -> tuple[list[str], list[str]]:
    """`count` of the words, and the others."""
    mixed = rng.sample(words, len(words))
    return mixed[:count], mixed[count:]


def _filled(rng: random.Random, table: Table, names: list[str], texts: tuple[str, ...] | list[str]) -> Table:
    numbers = rng.sample(NUMBERS, len(names))
    rows = ((name, rng.choice(texts), number) for name, number in zip(names, numbers, strict=True))
    return replace(table, rows=tuple(rows))


def _quoted(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _with(row: Row, place: int, value: Value) -> Row:
    return (*row[:place], value, *row[place + 1 :])


# -- questions ----------------------------------------------------------------------------------


def _count(draw: Draw) -> Scene:
    table = draw.table()
    column, text = table.columns[1], draw.text(table)
    return draw.asked(
        sum(row[1] == text for row in table.rows),
        f'How many {table.name} have the {column} "{text}"?',
        f'Count the {table.name} with the {column} "{text}".',
        f'Count the rows of {table.name} whose {column} is "{text}".',
    )


def _sum(draw: Draw) -> Scene:
    table = draw.table()
    (_, column, number), text = table.columns, draw.text(table)
    return draw.asked(
        sum(int(row[2]) for row in table.rows if row[1] == text),
        f'What is the total {number} of the {table.name} with the {column} "{text}"?',
        f'Add up the {number} of all {table.name} with the {column} "{text}".',
        f'Give the sum of {number} over the {table.name} whose {column} is "{text}".',
    )


def _lookup(draw: Draw) -> Scene:
    table = draw.table()
    row, place = draw.row(table), draw.rng.choice((1, 2))
    column = table.columns[place]
    return draw.asked(
        row[place],
        f'What is the {column} of "{row[0]}" in {table.name}?',
        f'Look up the {column} of "{row[0]}" in {table.name}.',
        f'Tell the {column} that {table.name} has for "{row[0]}".',
    )


def _top(draw: Draw) -> Scene:
    table = draw.table()
    (name, column, number), text = table.columns, draw.text(table)
    how, best = draw.rng.choice((("highest", max), ("lowest", min)))
    return draw.asked(
        best((row for row in table.rows if row[1] == text), key=lambda row: row[2])[0],
        f'Which {name} of the {table.name} with the {column} "{text}" has the {how} {number}?',
        f'Find the {name} with the {how} {number} among the {table.name} with the {column} "{text}".',
        f'Of the {table.name} whose {column} is "{text}", give the {name} with the {how} {number}.',
    )


def _join(draw: Draw) -> Scene:
    thing = draw.row(draw.things)
    person = next(row for row in draw.people.rows if row[0] == thing[1])
    place = draw.rng.choice((1, 2))
    column, link = draw.people.columns[place], draw.things.columns[1]
    return draw.asked(
        person[place],
        f'What is the {column} of the {link} of "{thing[0]}"?',
        f'Tell the {column} of the {link} of "{thing[0]}".',
        f'Look up the {link} of "{thing[0]}" and give the {column} that belongs to that name.',
    )


# -- changes ------------------------------------------------------------------------------------


def _update(draw: Draw) -> Scene:
    table = draw.table()
    row, place = draw.row(table), draw.rng.choice((1, 2))
    others = [other for other in (draw.traits if table is draw.people else _names(draw.people)) if other != row[1]]
    value = draw.rng.choice(others) if place == 1 else draw.number(table)
    column, shown = table.columns[place], _quoted(value)
    return draw.changed(
        table,
        lambda old: _with(old, place, value) if old == row else old,
        f'Set the {column} of "{row[0]}" to {shown} in {table.name}.',
        f'Change the {column} of "{row[0]}" in {table.name} to {shown}.',
        f'In {table.name}, "{row[0]}" has a new {column}: {shown}.',
    )


def _raise(draw: Draw) -> Scene:
    table = draw.table()
    row, amount, up = draw.row(table), draw.rng.randint(2, 9), draw.rng.random() < 0.5
    column = table.columns[2]
    return draw.changed(
        table,
        lambda old: _with(old, 2, int(old[2]) + (amount if up else -amount)) if old == row else old,
        f'{"Raise" if up else "Lower"} the {column} of "{row[0]}" by {amount} in {table.name}.',
        f'Make the {column} of "{row[0]}" in {table.name} {amount} {"higher" if up else "lower"}.',
        f'In {table.name}, the {column} of "{row[0]}" {"goes up" if up else "goes down"} by {amount}.',
    )


def _insert(draw: Draw) -> Scene:
    table = draw.table()
    (name, column, number), new = table.columns, draw.new(table)
    return draw.changed(
        table,
        lambda old: old,
        f'Add "{new[0]}" to {table.name} with the {column} "{new[1]}" and the {number} {new[2]}.',
        f'Insert a row into {table.name}: {name} "{new[0]}", {column} "{new[1]}", {number} {new[2]}.',
        f'The table {table.name} needs a new row with {name} "{new[0]}", {column} "{new[1]}" and {number} {new[2]}.',
        new=new,
    )


def _delete(draw: Draw) -> Scene:
    table = draw.table()
    _, column, number = table.columns
    if draw.rng.random() < 0.5:
        text = draw.text(table)
        return draw.changed(
            table,
            lambda old: None if old[1] == text else old,
            f'Delete the {table.name} with the {column} "{text}".',
            f'Remove all {table.name} whose {column} is "{text}".',
            f'Clear {table.name} of every row with the {column} "{text}".',
        )
    limit, above = _between(draw, table), draw.rng.random() < 0.5
    how = "above" if above else "below"
    return draw.changed(
        table,
        lambda old: None if (int(old[2]) > limit if above else int(old[2]) < limit) else old,
        f"Delete the {table.name} with {number} {how} {limit}.",
        f"Remove all {table.name} whose {number} is {how} {limit}.",
        f"Clear {table.name} of every row with {number} {how} {limit}.",
    )


def _same(draw: Draw) -> Scene:
    table = draw.table()
    # Numbers differ in all rows; texts may be the same in all.
    place = draw.rng.choice((1, 2)) if len({row[1] for row in table.rows}) > 1 else 2
    source = draw.row(table)
    target = draw.rng.choice([row for row in table.rows if row[place] != source[place]])
    column = table.columns[place]
    return draw.changed(
        table,
        lambda old: _with(old, place, source[place]) if old == target else old,
        f'Give "{target[0]}" the same {column} as "{source[0]}" in {table.name}.',
        f'In {table.name}, set the {column} of "{target[0]}" to that of "{source[0]}".',
        f'Copy the {column} of "{source[0]}" to "{target[0]}" in {table.name}.',
    )


def _replace(draw: Draw) -> Scene:
    table = draw.table()
    (_, column, number), old, new = table.columns, draw.row(table), draw.new(table)
    values = f'the {column} "{new[1]}" and the {number} {new[2]}'
    return draw.changed(
        table,
        lambda row: None if row == old else row,
        f'In {table.name}, delete "{old[0]}" and add "{new[0]}" with {values}.',
        f'Replace "{old[0]}" in {table.name} by a new row "{new[0]}" with {values}.',
        f'"{old[0]}" leaves {table.name}, and "{new[0]}" comes with {values}.',
        new=new,
    )


def _names(table: Table) -> list[str]:
    return [str(row[0]) for row in table.rows]


def _between(draw: Draw, table: Table) -> int:
    """A number that lies between two of the third column and is none of them."""
    numbers = sorted(int(row[2]) for row in table.rows)
    gaps = [(low, high) for low, high in pairwise(numbers) if high - low > 1]
    low, high = draw.rng.choice(gaps)
    return draw.rng.randint(low + 1, high - 1)


_SCENES: dict[str, Callable[[Draw], Scene]] = {
    "count": _count,
    "delete": _delete,
    "insert": _insert,
    "join": _join,
    "lookup": _lookup,
    "raise": _raise,
    "replace": _replace,
    "same": _same,
    "sum": _sum,
    "top": _top,
    "update": _update,
}
FAMILIES = tuple(sorted(_SCENES))


def scene(family: str, seed: int) -> Scene:
    """The task of a family at a seed; always the same one."""
    return _SCENES[family](Draw(random.Random(f"{family}@{seed}")))
