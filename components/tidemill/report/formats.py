"""Numbers, times and sizes as people read them: three significant digits, thin separators, units."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

THIN = "\u202f"  # narrow no-break space: a number never breaks across lines
NONE = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: float | None) -> str:
    """Returns a whole number with thin separators: ``48 842``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(value):,}".replace(",", THIN).replace("-", "\u2212")


def number(value: float | None, digits: int = 3) -> str:
    """Returns ``digits`` significant digits: ``0.912``, ``1 230 000``, ``1.23×10⁻⁵``."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "\u2212∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -4 or exponent > 8:
        mantissa = f"{rounded / 10.0**exponent:.{digits - 1}f}"
        text = f"{mantissa}×10{str(exponent).translate(_SUPERSCRIPT)}"
    else:
        text = f"{rounded:,.{max(0, digits - 1 - exponent)}f}"
    if float(value).is_integer() and "." in text and "×" not in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace(",", THIN).replace("-", "\u2212")


def signed(value: float | None, digits: int = 2) -> str:
    """Returns :func:`number` with its sign always shown, for differences."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 else text


def share(value: float | None) -> str:
    """Returns a share of 1 in percent: ``12.3 %``; what is there but tiny isn't shown as nothing."""
    if value is None or not math.isfinite(value):
        return NONE
    percent = value * 100
    if 0 < percent < 0.01:
        return f"<{THIN}0.01{THIN}%"
    if 99.99 < percent < 100:
        return f">{THIN}99.99{THIN}%"
    text = number(percent, 3 if abs(percent) >= 1 else 2)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{THIN}%"


def duration(seconds: float | None) -> str:
    """Returns ``85 ms``, ``12.3 s``, ``2 min 3 s`` or ``1 h 2 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds <= 0:
        return f"0{THIN}s"
    if seconds < 0.9995:
        return f"{number(seconds * 1000)}{THIN}ms" if seconds >= 0.001 else f"<{THIN}1{THIN}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s" if rest else f"{minutes}{THIN}min"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)}{THIN}h {minutes}{THIN}min" if minutes else f"{count(hours)}{THIN}h"


def milliseconds(value: float | None) -> str:
    """Returns a latency given in milliseconds: ``12.3 ms``."""
    return NONE if value is None else f"{number(value)}{THIN}ms"


def megabytes(value: float | None) -> str:
    """Returns a size given in MB: ``512 MB``, ``1.25 GB``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{number(value)}{THIN}MB" if value < 1000 else f"{number(value / 1000)}{THIN}GB"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Returns the two ends of an interval: ``0.842 to 0.861``; nothing if there is no interval."""
    return "" if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def money(value: float | None) -> str:
    """Returns an estimated sum: ``12.30``, ``0.0023``, ``<0.0001``."""
    if value is None or not math.isfinite(value):
        return NONE
    if 0 < value < 0.0001:
        return f"<{THIN}0.0001"
    return f"{value:,.2f}".replace(",", THIN) if value >= 1 else number(value, 2)


def words(name: str) -> str:
    """Returns an identifier as words: ``equal_opportunity_gap`` → ``equal opportunity gap``."""
    return name.replace("_", " ").replace("-", " ").strip()


def shortened(text: str, limit: int = 80) -> str:
    """Returns ``text`` with its middle cut out beyond ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def plural(number_of: int, noun: str, many: str | None = None) -> str:
    """Returns ``1 check``, ``3 checks``, ``2 categories``."""
    return f"{count(number_of)} {noun if number_of == 1 else many or noun + 's'}"


def prose(text: str) -> Markup:
    """Returns escaped text in which what stands between backticks is set as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a character
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))
