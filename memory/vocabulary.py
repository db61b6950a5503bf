"""Words that memory may repeat whoever said them: common names of controls, tools, arguments and things.

Three or four of them make the name of a button or a tool and hardly an order. What gives something away, destroys,
redirects or switches off (``delete``, ``transfer``, ``forward``, ``allow``, ``disable`` …) is left out on purpose, and
so are names, numbers, and what ranks or urges (``always``, ``instead``, ``first``, ``best``).
"""

import re
from collections.abc import Collection

_COMMON = """
a an and any as at by for from in into is it its my no of on or out per the this to up with within your you yes not

about account accounts action active activity add added address age agenda agent album all amount answer app
application apply appointment appointments area article articles arrival arrive artist assign assigned assignee attach
attendee attribute author authors availability available back bag balance bank bar basket batch begin bike bill
billing birth birthday block board body book booking books box branch brand breadcrumb browse budget bug build building
business button buy cabin calculate calendar call cancel capacity caption car card cards cart case cases catalog
catalogue category categories cell chapter chart chat check checkbox checked checkin checkout choice choose city class
clear click client clinic close closed code collection color colour column columns combobox comment comments company
compare compose condition confirm confirmation contact contacts content continue convert copy cost count country county
coupon course create created currency current customer customers daily data database date dates day days deadline
decrease default delivery depart department departure describe description desk destination detail details device dialog
diary difference dinner direction discount display distance district doctor document documents done double down draft
drive driver due duration edit email employee empty end ending engine enter entries entry equipment error errors
estimate event events exact exam existing expense expiry family fare fax feature fee feedback fetch field fields file
files fill filter filters find finish first flight flights floor folder folders food forecast form format found
frequency full fund gallery gate gender get given goal grade graph group groups guest guests guide header heading
health height help history hold home hospital hotel hotels hour hours house icon id identifier image images inbox
increase index info information insert insurance interest inventory invoice invoices issue issues item items job jobs
journey label labels language last late latest layer lead leave length lesson level library license limit line lines
link list listing lists loan local location locations log login logout look lookup low lunch machine mail mailbox main
make manager map mark material max maximum meal measure medication meeting meetings member members memo menu menus
merge message messages meter method middle min minimum minute minutes mobile model money month monthly more move movie
music name names nationality network new newsletter next night nights node none normal note notes notice number numbers
object occupation offer office one open opened option options order orders organisation organization origin original
overview owner package page pages paid parcel park parking part passenger passengers passport password patient patients
pay payer payment payments pending people percent period person phone photo photos pick pickup picture place plan plane
plans platform player playlist plot point policy pool position post postal postcode posts prepare prescription
prescriptions preview previous price prices print priority problem process product products profile progress project
projects property province purchase purpose quantity query question questions queue quote radio rain range rate rating
read reader reason receipt recent recipe recipes recipient record records reference refresh refund region register
registration release rent rental repeat repeated reply report reports request requests reservation reservations reserve
reset resource restart restaurant result results return review reviews role room rooms route row rows salary sale
sample save saved schedule school score search searchbox seat seats second section sections select selected seller send
sent series server service services session set settings shelf ship shipment shipped shipping shop show sign signup
single site size skip sku slot slots song sort source south space spinbutton staff stage start state station status
stay step stock stop storage store street student students style subject submit subscribe summary supplier surname
switch symbol system tab table tables tag tags target task tasks tax taxi team teams telephone temperature term terms
test text textbox thread threads ticket tickets time times title toggle tool tools topic total tour town track
train travel tree trip type under unit units unread update updated use user username users validate value values
vehicle verify version video view visit visitor volume wait warehouse weather web week weekly weight west width window
word words work write year yearly years zip zone

monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september
october november december today tomorrow morning afternoon evening north east

host hosts hostname job deploy restart reboot ping sku summary draft drafts meeting invite translate translation
amount reading wheel door print scan sensor humidity rainfall forecast chance slot owner label priority severity
escalate to number id ids path paths dir directory filename extension query sql limit offset page sort order by
field key column latitude longitude currency unit timezone start end begin since until before after minutes seconds

api appt cpu crm ctx db dept desc dim dns dob doc docs dst erp faq fx gps hr iban img inv ip isbn iso kb kpi lang
lat len lon loc max min misc msg mgr num obj org pct pdf pin po pos pref prev prod px qty ram ref refs req res rss
seq sla sms spec src stat stats sys tel temp tmp ts tz uid url usr val var vat ver vin vm xml csv json html png

add arrange assemble average borrow broadcast brew bundle calibrate capture claim classify clock combine compress
compute configure cook count crop decode dice divide dose encode enroll expand extract fold forecast format generate
harvest identify inspect invert join light list locate lock mix monitor mount move multiply order pack paint parse
pause plant poll print pump quiz recommend record rename render resize resume rotate round sew simulate solve sort
split stack stretch subtract sum summarize survey tag test transcribe trim tune unpack wash water weigh weld zoom
"""
WORDS = frozenset(_COMMON.split()) - {"skip", "policy", "first", "switch", "all", "coupon", "more"}
_PROHIBITED = """
    delete remove erase drop transfer grant disable share forward upload export revoke unlock
"""
PROHIBITED = frozenset(_PROHIBITED.split())
"""Words that are known where something is forbidden: that is the side on which to err."""
_ROLES = """
    alert article banner button cell checkbox columnheader combobox date dialog form generic grid gridcell group
    heading img image label link list listbox listitem main menu menubar menuitem navigation option paragraph
    progressbar radio radiogroup row searchbox slider spinbutton status switch tab table tabpanel text textbox
    textarea time toolbar tree treeitem
"""
ROLES = frozenset(_ROLES.split())
"""What an element can be."""
_PAGE_VERBS = """
    click fill select press noop check uncheck hover scroll wait back type clear
"""
PAGE_VERBS = frozenset(_PAGE_VERBS.split())
_KEYS = """
    Enter Tab Escape Space Backspace ArrowUp ArrowDown ArrowLeft ArrowRight Home End
"""
KEYS = frozenset(_KEYS.split())

LONGEST_NAME = 64
"""Characters of an offered name that is repeated; longer ones could be a text."""

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def known(word: str) -> bool:
    """Whether a word, or its singular, is common; letters only."""
    low = word.lower()
    return word.isascii() and (low in WORDS or (low.endswith("s") and low[:-1] in WORDS))


def known_name(name: str, *, prohibited: bool = False, offered: Collection[str] = ()) -> bool:
    """Whether the name of a tool or an argument may be repeated: it consists of at most five common words, such as
    ``get_order``, or an environment offers it to whoever acts there; and none of its words is for prohibitions
    only.

    Args:
        prohibited: whether it is to be forbidden; then those words are known, too.
        offered: names of tools and arguments in the listings of the environment.
    """
    parts = [part.lower() for part in _PARTS.findall(name)]
    if not prohibited and not PROHIBITED.isdisjoint(parts):
        return False
    if name in offered:
        return len(name) <= LONGEST_NAME
    plain = "".join(parts) == re.sub(r"[_.\-]", "", name).lower()
    return plain and 0 < len(parts) <= 5 and all(known(part) or part in PROHIBITED for part in parts)
