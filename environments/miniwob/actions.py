"""Carrying out one checked call on a page, as a user would: with the mouse and the keyboard."""

from typing import TYPE_CHECKING, Any

from tutelage.calls import Call
from tutelage.environments.base import ActionRefused

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

ELEMENT_TIMEOUT = 8000
"""Milliseconds for one action. Long, for a loaded machine; what cannot work is refused before it is tried."""
NOOP = 300
TYPED_LENGTH = 200
"""Longer texts are inserted at once even where the page listens to single keys."""


async def perform(page: "Page", call: Call) -> None:
    """Carry out `call`, whose name and arguments have been checked.

    Raises:
        ActionRefused: the element is gone, of the wrong kind, covered, hidden or disabled.
        playwright.async_api.Error: the page itself failed.
    """
    from playwright.async_api import Error, TimeoutError

    if call.name == "noop":
        await page.wait_for_timeout(NOOP)
        return
    ref = call.args[0]
    about = await page.evaluate("([ref, content]) => tutelage.describe(ref, content)", [ref, call.args[-1]])
    if about is None:
        raise ActionRefused(f"{ref} is no longer on the page.")
    if about["disabled"]:
        raise ActionRefused(f"{ref} is disabled.")
    target = page.locator(f'[data-ref="{ref}"]')
    try:
        await _ACTIONS[call.name](page, target, about, call)
    except TimeoutError as error:
        raise ActionRefused(f"{call.name} on {ref} was not possible: {_reason(error.message)}.") from error
    except Error as error:
        if page.is_closed() or "crashed" in error.message or "closed" in error.message:
            raise
        raise ActionRefused(f"{call.name} on {ref} was not possible: {_reason(error.message)}.") from error


async def _click(page: "Page", target: "Locator", about: dict[str, Any], call: Call) -> None:
    if about["covered"]:
        raise ActionRefused(f"{call.args[0]} cannot be clicked; something else covers it.")
    if about["tag"] == "OPTION" and about["dropdown"]:
        # A drop-down's list is drawn by the browser, outside the page.
        await target.locator("xpath=ancestor::select").select_option(index=about["index"], timeout=ELEMENT_TIMEOUT)
    elif about["tag"] == "OPTION" and about["multiple"]:
        await target.click(modifiers=["Control"], timeout=ELEMENT_TIMEOUT)
    elif about["opens"]:
        # What opens under the mouse is not pressed: jQuery UI takes a press for a choice.
        await target.hover(timeout=ELEMENT_TIMEOUT)
    else:
        await target.click(timeout=ELEMENT_TIMEOUT)


async def _fill(page: "Page", target: "Locator", about: dict[str, Any], call: Call) -> None:
    ref, content = call.args
    if not about["editable"]:
        raise ActionRefused(f"One cannot write into {ref}; it is not a text field.")
    if about["readOnly"]:
        raise ActionRefused(f"{ref} is read-only.")
    if not about["accepts"]:
        form = _FORMS.get(about["type"], "a text of another form")
        raise ActionRefused(f"{ref} wants {form}.")
    if about["keys"] and 0 < len(content) <= TYPED_LENGTH:
        await target.fill("", timeout=ELEMENT_TIMEOUT)
        await target.press_sequentially(content, timeout=ELEMENT_TIMEOUT + 20 * len(content))
        if await target.input_value(timeout=ELEMENT_TIMEOUT) not in ("", about["value"]):
            return
        # The page swallowed the keys, as a spinner does; put the text in as a paste would.
    await target.fill(content, timeout=ELEMENT_TIMEOUT)


async def _select(page: "Page", target: "Locator", about: dict[str, Any], call: Call) -> None:
    ref, wanted = call.args
    options = about["options"]
    if about["tag"] != "SELECT":
        raise ActionRefused(f"{ref} is not a list; select needs one.")
    if wanted not in options:
        raise ActionRefused(f"{ref} has no option {wanted[:40]!r}.")
    await target.select_option(index=options.index(wanted), timeout=ELEMENT_TIMEOUT)


async def _press(page: "Page", target: "Locator", about: dict[str, Any], call: Call) -> None:
    await target.press(call.args[1], timeout=ELEMENT_TIMEOUT)


_FORMS = {"date": "a date such as 2016-03-09", "time": "a time such as 20:15", "number": "a number"}
_ACTIONS = {"click": _click, "fill": _fill, "select": _select, "press": _press}


def _reason(message: str) -> str:
    for sign, reason in (
        ("intercepts pointer events", "something else covers it"),
        ("not visible", "it is not visible"),
        ("not enabled", "it is disabled"),
        ("not stable", "it keeps moving"),
        ("not editable", "it is read-only"),
        ("detached", "it is no longer on the page"),
        ("outside of the viewport", "it is outside of the visible part"),
    ):
        if sign in message:
            return reason
    return "the page gave no way to do it in time" if "Timeout" in message else message.splitlines()[0][:120]
