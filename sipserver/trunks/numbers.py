"""Telephone numbers on their way to a peer: what they mean (E.164), whether they may be called, and in which form.

Owns the use of the phonenumbers library and the rules of `allow`, `deny` and `premium`. Refuses to know SIP URIs, names
of trunks and who calls. Pure. Errors never contain the number: they say which rule refused it.

What is written with `+` is an international number and must have a possible length. Where the trunk has a `country`, so
is what is written as people dial there: with the national prefix (030...), or a number that exists. Others have no
international form:

- Emergency numbers (110, 112, 911, ... of the trunk's country) and other short numbers (116117, 11833, ...) are refused
  unless an `allow` names them as they are dialled, without `+`. Calls of this server are placed by dialplans and
  programs and carry no location; where people dial through it, the operator lets `112` pass on the right trunk
  deliberately. They go out as written, whatever `number_format` says.
- Users (`bob`), extensions and codes of a PBX (`200`, `*21#`) pass on trunks with `number_format: as_is`. `allow` and
  `deny` compare with what was written. What they mean is the affair of the PBX: an `as_is` trunk without a `country`
  also passes 112.

Premium-rate, shared-cost and satellite numbers are refused unless `premium` is set or an `allow` names them: one that
goes on for at least three digits after the country code (`+49900`), or names the whole code of a satellite network
(`+881`). A wider one, such as `+49`, does not mean them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from sipserver.errors import NotAllowed
from sipserver.trunks.settings import TrunkSettings

_SEPARATORS = re.compile(r"[\s./()\-\u2010-\u2015\u00a0]+")
_DIALLED = re.compile(r"\+?[0-9*#]{1,40}")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9._~-]{0,63}")
_DIGITS = re.compile(r"\+?[0-9]+")
_COSTLY = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST})
_SATELLITE = frozenset({870, 878, 881, 882, 883, 888})
"""Inmarsat, universal personal numbers, GMSS, international networks: what no ordinary tariff covers."""
_NO_COUNTRY = "001"
_LONGEST = 15
"""Digits of an international number (E.164)."""


def dialled(to: str, trunk: TrunkSettings) -> str:
    """The number as the trunk's peer wants it: digits, `+`, `*`, `#` alone. to: as somebody wrote it, or a `tel:` URI.

    Raises NotAllowed when it is no number or the trunk may not call it.
    """
    if trunk.number_format == "as_is" and _USER.fullmatch(to.strip()):
        return to.strip()
    text = _plain(to)
    number = _international(text, trunk.country)
    if number is None:
        _check_short(text, trunk)
        return text
    _check(number, trunk)
    return text if trunk.number_format == "as_is" else _formatted(number, trunk)


def check(to: str, trunk: TrunkSettings) -> None:
    """Raise NotAllowed when `to` is a number that the trunk may not call. What is no number (a name) passes, as do
    extensions: for SIP URIs, which name them on purpose.
    """
    text = _SEPARATORS.sub("", to)
    if not _DIGITS.fullmatch(text):
        return
    number = _international(text, trunk.country)
    if number is not None:
        _check(number, trunk)
    elif _emergency(text, trunk.country):
        _check_short(text, trunk)


def shown(user: str, trunk: TrunkSettings) -> str:
    """A caller's number in the form that the peer wants; what is no international number stays as it is."""
    text = _SEPARATORS.sub("", user)
    if trunk.number_format == "as_is" or not _DIGITS.fullmatch(text):
        return user
    number = _international(text, trunk.country)
    return _formatted(number, trunk) if number is not None else user


def _plain(to: str) -> str:
    scheme, colon, rest = to.partition(":")
    if colon and scheme.strip().lower() == "tel":
        to = rest.partition(";")[0]
    text = _SEPARATORS.sub("", to)
    if not _DIALLED.fullmatch(text):
        raise NotAllowed("this is neither a telephone number nor a sip: address")
    return text


def _international(text: str, country: str) -> PhoneNumber | None:
    """None for what has no international form: short numbers, extensions, and all without `+` where no country says
    how to read it.
    """
    if not _DIGITS.fullmatch(text) or not (text.startswith("+") or country):
        return None
    try:
        number = phonenumbers.parse(text, country or None)
    except NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number) or _is_short(text, number):
        return None
    if not text.startswith("+") and not _written_nationally(text, country) and not phonenumbers.is_valid_number(number):
        return None  # a subscriber's number without its area code, or an extension
    return number


def _written_nationally(text: str, country: str) -> bool:
    prefix = phonenumbers.ndd_prefix_for_region(country, True)
    return bool(prefix and text.startswith(prefix))


def _is_short(text: str, number: PhoneNumber) -> bool:
    """Short numbers have possible lengths in some countries. Also when somebody put a country code in front of one."""
    national = phonenumbers.national_significant_number(number)
    code = number.country_code or 0
    if text.removeprefix("+") not in (national, f"{code}{national}"):
        return False
    return any(
        phonenumbers.is_emergency_number(national, region)
        or phonenumbers.is_valid_short_number_for_region(number, region)
        for region in phonenumbers.region_codes_for_country_code(code)
        if region != _NO_COUNTRY
    )


def _emergency(text: str, country: str) -> bool:
    return bool(country) and bool(phonenumbers.is_emergency_number(text, country))


def _check_short(text: str, trunk: TrunkSettings) -> None:
    allowed = _longest(text, trunk.allow)
    if _longest(text, trunk.deny) >= max(allowed, 1):
        raise NotAllowed(f"a `deny` of the trunk {trunk.name} names this number")
    if allowed:
        return
    if _emergency(text, trunk.country):
        raise NotAllowed(f"emergency numbers are called through the trunk {trunk.name} only if an `allow` names them")
    if trunk.number_format != "as_is":
        raise NotAllowed(
            f"the trunk {trunk.name} takes numbers in international form (+49...)"
            + (f", or as they are dialled in {trunk.country}" if trunk.country else "")
            + ", and short ones only if an `allow` names them"
        )
    if text.startswith("+"):
        raise NotAllowed("this number has an impossible length")
    if trunk.allow:
        raise NotAllowed(f"no `allow` of the trunk {trunk.name} names this number")


def _check(number: PhoneNumber, trunk: TrunkSettings) -> None:
    text = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    allowed, denied = _longest(text, trunk.allow), _longest(text, trunk.deny)
    if denied and denied >= allowed:
        raise NotAllowed(f"a `deny` of the trunk {trunk.name} names this number")
    if trunk.allow and not allowed:
        raise NotAllowed(f"no `allow` of the trunk {trunk.name} names this number")
    kind = "" if trunk.premium else _kind(number)
    if kind and allowed < _length_that_names(number):
        raise NotAllowed(
            f"{kind} numbers are called through the trunk {trunk.name} only with `premium` or an `allow` of their own"
        )


def _longest(text: str, prefixes: Iterable[str]) -> int:
    return max((len(prefix) for prefix in prefixes if text.startswith(prefix)), default=0)


def _length_that_names(number: PhoneNumber) -> int:
    """So long must an `allow` be to mean a costly number, its `+` counted."""
    code = len(str(number.country_code)) + 1
    return code if _borderless(number) else code + 3


def _borderless(number: PhoneNumber) -> bool:
    code = number.country_code or 0
    return code in _SATELLITE or phonenumbers.region_code_for_country_code(code) == _NO_COUNTRY


def _kind(number: PhoneNumber) -> str:
    """premium-rate | shared-cost | satellite, or an empty string."""
    if number.country_code in _SATELLITE:
        return "satellite"
    kind = phonenumbers.number_type(number)
    if kind == PhoneNumberType.UNKNOWN:
        kind = _kind_of_range(number)
    if kind not in _COSTLY:
        return ""
    return "premium-rate" if kind == PhoneNumberType.PREMIUM_RATE else "shared-cost"


def _kind_of_range(number: PhoneNumber) -> int:
    """For a number of the wrong length, which a carrier might still put through: what one of the right length in the
    same range would be.
    """
    national = phonenumbers.national_significant_number(number)
    for length in range(4, _LONGEST + 1 - len(str(number.country_code))):
        for filler in "15":
            text = f"+{number.country_code}{national[:length].ljust(length, filler)}"
            kind: int = phonenumbers.number_type(phonenumbers.parse(text))
            if kind in _COSTLY:
                return kind
    return int(PhoneNumberType.UNKNOWN)


def _formatted(number: PhoneNumber, trunk: TrunkSettings) -> str:
    international = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    match trunk.number_format:
        case "e164":
            return str(international.removeprefix("+"))
        case "national":
            form = phonenumbers.format_out_of_country_calling_number(number, trunk.country)
            if phonenumbers.country_code_for_region(trunk.country) == number.country_code:
                form = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
            return re.sub(r"[^0-9]", "", form)
        case _:
            return str(international)
