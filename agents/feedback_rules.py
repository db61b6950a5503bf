"""How the embedded scripted judge reads what followed on a reply: by rule, from the text of the request alone.

It knows explicit words only: thanks and agreement, contradiction, and how tools report errors. All else is unclear.
"""

import re

from tutelage.agents.transcripts import fenced, one_line

QUOTED = 200
"""Characters of the successor that a correction quotes at most."""

_NO = re.compile(
    r"""(?ix)
      ^\W*(?:no|nope|wrong|incorrect|stop|undo(?:\ that)?)\b(?!\W*(?:problem|worries|further|more|need|thank))
    | \b(?:that|this|it|which)(?:'s|’s|\ is|\ was)\ (?:still\ )?(?:wrong|incorrect)\b
    | \b(?:that|this|it)(?:'s|’s|\ is|\ was)\ not\ (?:right|correct|true|what|working)
    | \b(?:that|this|it)\ (?:isn't|isn’t|wasn't|wasn’t)\ (?:right|correct|true|what|working)
    | \bnot\ what\ i\ (?:asked|wanted|meant|said)
    | \b(?:does|did)(?:n't|n’t|\ not)\ work | \bstill\ (?:wrong|broken|failing|fails)
    | \btry\ again | \byou\ (?:forgot|missed|ignored|misunderstood|got\ (?:it|that)\ wrong)
    | \bi\ (?:said|meant|asked\ for|told\ you) | \bplease\ (?:undo|redo|correct)\b
    """
)
_YES = re.compile(
    r"""(?ix)
      \b(?:thanks|thank\ you|thx|cheers)\b
    | ^\W*(?:perfect|great|exactly|correct|excellent|wonderful|awesome|brilliant|nice)\b
    | ^\W*(?:well\ done|good\ (?:job|work|answer))\b
    | ^\W*(?:yes|yep)\W+(?:that|this|it|exactly|correct|perfect|great)
    | \b(?:that|this|it)(?:'s|’s|\ is|\ was)\ (?:right|correct|perfect|exactly|what\ i)
    | \b(?:that|it)\ (?:works|worked)\b
    """
)
_ERROR = re.compile(
    r"""(?ix)
      ^[\s\[(*!#>-]*(?:\w+\ )?(?:error|exception|traceback|failed|failure|fatal|invalid|denied|forbidden|unauthorized)\b
    | ^[\w.]+(?:Error|Exception)\b
    | "(?:error|errors|exception)"\s*:\s*+(?!null|false|""|\[\s*\]|\{\s*\}|0\b)
    | "(?:success|ok)"\s*:\s*false | "status"\s*:\s*"(?:error|fail\w*)" | "status(?:_?code)?"\s*:\s*[45]\d\d\b
    | \bexit\ (?:code|status):?\ [1-9] | \b(?:no\ such|unknown|not\ a\ valid)\ (?:file|tool|command|argument|function)
    """
)
_DONE = re.compile(
    r'(?i)^\W*(?:ok|done|success\w*)\b|"(?:success|ok)"\s*:\s*true|"status"\s*:\s*"(?:ok|success\w*|done|completed)"'
)


def feedback(text: str) -> dict[str, object]:
    """The judge's reply to a request of `tutelage.agents.feedback`."""
    successor = fenced("feedback", text).strip()
    if text.startswith("Next: tool"):
        wrong, right, who = _ERROR.search(successor), _DONE.search(successor), "The tool answered"
    else:
        wrong, right, who = _NO.search(successor), _YES.search(successor), "The user answered"
    if wrong:
        line = one_line(successor)
        return {"score": -1, "correction": f"{who}: {line[:QUOTED]}{'...' if len(line) > QUOTED else ''}"}
    return {"score": int(right is not None), "correction": ""}
