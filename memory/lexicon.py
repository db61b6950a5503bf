"""Words that decide whether two statements may be taken for one: small lists, for English.

They need not be complete: a word that is in none of them is a word of its own, and statements that differ in one are
never merged by rule.
"""

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


PHRASES = tuple(
    (re.compile(rf"\b(?:{pattern})\b"), put)
    for pattern, put in (
        (r"(?:can|could|may|might)not", "may not"),
        (r"cant|can't", "may not"),
        (r"won't", "not"),
        (r"(\w+)n't", r"\1 not"),
        (r"not only", "xnotonly"),
        (r"nothing (?:else )?but|no(?:thing)? other than|none but", "only"),
        (r"not (?:always|necessarily|all|every|each|both)", "xnotall"),
        (r"no longer|no more", "xnolonger"),
        (r"(?:(?:do|does|did|is|are) )?not (?:need|have|required|obliged|necessary|needed)(?: to)?", "xoptional"),
        (r"need not|no need(?: to)?|optional(?:ly)?|unnecessary(?: to)?", "xoptional"),
        (r"(?:fail|forget|neglect)(?:s|ed|ing|ting)? to", "xomit"),
        (r"(?:rather than|instead of)", "xinstead"),
        (r"(?:make|be|making|being) sure(?: that| to)?|take care(?: that| to)?", "always"),
        (r"most expensive", "dearest"),
        (r"e-mail", "email"),
        (r"press(?=(?: \S+){0,4} button\b)", "click"),
        (r"(?:each|every) time|at all times|in (?:any|every) case", "always"),
        (r"at (least|most)", r"at\1"),
        (r"as long as|provided that|^should(?=.*,)", "if"),
    )
)
"""Wordings that are one word, in this order."""

NEGATORS = _set("not never no none nothing nobody neither nor without avoid refrain xomit xinstead")
"""What turns the statement that follows into its opposite; two of them cancel out."""

DUTY = _set("always must should shall ought ensure remember required mandatory")
"""An order is an order with them and without; a negation before them ends there."""

MARKERS = {
    **{word: word for word in _set("unless except only xnotonly xnotall xnolonger xoptional until while")},
    **{word: word for word in _set("sometimes usually often mostly occasionally and or all any some both either")},
    **{word: word for word in _set("more less fewer than atleast atmost exactly most least then before after")},
    **dict.fromkeys(("rarely", "seldom", "hardly", "barely", "scarcely"), "rarely"),
    **dict.fromkeys(("may", "can", "could", "might"), "may"),
    **dict.fromkeys(("each", "every"), "each"),
    **dict.fromkeys(("if", "when", "whenever"), "if"),
    **dict.fromkeys(("but", "however"), "but"),
    "till": "until",
    **dict.fromkeys(("just", "solely", "merely"), "only"),
    **dict.fromkeys(("besides", "excluding"), "except"),
    "xinstead": "instead",
}
"""Words that limit, join or order what is said; statements with others say something else."""

SUBORDINATORS = _set("if when whenever unless until till while before after because since")
"""What follows them is a circumstance, up to the next stop."""

ORDERING = _set("to from into onto over than then instead before after by for")
"""With one of them the order of the other words counts."""

MOVABLE = _set("first finally")
"""Adverbs that mean the same wherever they stand, unless they stand behind one of `ARTICLES`."""

ARTICLES = _set("the a an its their your each every this that")

PASSIVE = re.compile(r"\b(?:be|is|are|was|were|been|being|there)\b")

FILLERS = _set(
    "a an the of in on at to with is are was were be been being has have had it its this that these those there "
    "you your please carefully so also thereby will would do does did"
)

PREPOSITIONS = _set("to in on at of with")
"""Fillers all the same; where statements have others, a reader has to tell."""

IDLE = {
    "to": DUTY | _set("not"),
    "on": _set("click tap press"),
    "of": _set("both all each some any either one none"),
}
"""Behind which words a preposition says nothing; and none does on whose page `there` is something."""

DANGLING = _set("a an of in on at to with")
"""Of these, what counts at the end of a clause (`option a`, `turn it on`)."""

NUMBERS = {
    word: str(number)
    for number, words in {
        0: "zero",
        1: "one once",
        2: "two twice double",
        3: "three thrice triple",
        4: "four",
        5: "five",
        6: "six",
        7: "seven",
        8: "eight",
        9: "nine",
        10: "ten",
        12: "twelve dozen",
        100: "hundred",
        1000: "thousand",
    }.items()
    for word in words.split()
}

PARTICLES = dict.fromkeys(
    _set("turn switch log sign zoom opt scroll roll check fill set shut back"), _set("on off in out up down")
)
"""Verbs that are another verb with one of these words behind them."""

SYNONYMS = {
    word: group[0]
    for group in (
        ("choose", "pick"),
        ("delete", "remove", "erase"),
        ("enter", "type"),
        ("start", "begin"),
        ("show", "display"),
        ("folder", "directory"),
        ("wrong", "incorrect"),
        ("picture", "image"),
        ("big", "large"),
        ("fill", "fill-in"),
    )
    for word in group
}

ANTONYMS = tuple(
    pair.split("/")
    for pair in sorted(
        _set(
            "accept/reject accept/decline accept/refuse allow/forbid allow/deny allow/prevent allow/prohibit "
            "ascend/descend begin/end start/end start/finish big/small cheapest/dearest close/open collapse/expand "
            "connect/disconnect correct/wrong create/delete decrease/increase disable/enable cheap/expensive down/up "
            "early/late empty/full even/odd exclude/include include/omit export/import fail/succeed false/true "
            "first/last grant/revoke hide/show high/low highest/lowest horizontal/vertical inside/outside "
            "insert/delete add/delete keep/delete keep/discard largest/smallest biggest/smallest earliest/latest "
            "newest/oldest new/old left/right lock/unlock long/short longest/shortest maximum/minimum "
            "maximise/minimise next/previous off/on fail/pass absent/present private/public pull/push raise/lower "
            "read/write different/same discard/save receive/send start/stop bottom/top download/upload "
            "lowercase/uppercase hidden/visible invisible/visible invalid/valid after/before backward/forward"
        )
    )
)
"""Words one of which is the other's opposite; prefixes (`un`, `dis`) and particles are known besides."""

DESCRIBES = re.compile(
    r"\b(?:is|are|was|were|has|have|had|there|reads|shows|names|says|holds|contains|lists)\b", re.IGNORECASE
)
"""Says that a line tells of a situation, unless it is an order all the same."""

ORDERS = re.compile(
    r"\b(?:(?:always|never)(?! (?:is|are|was|were|has|reads|shows|names|says|holds|contains|lists)\b)"
    r"|must|should|shall|do not|don't|avoid|ensure|make sure|be sure|required|forbidden|not to)\b",
    re.IGNORECASE,
)
