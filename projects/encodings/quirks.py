"""Encodings. In: a config's published_quirks. Out: which of the published code's peculiarities a module follows."""

from __future__ import annotations

from collections.abc import Sequence


def parse_quirks(value: bool | Sequence[str], known: Sequence[str], what: str) -> frozenset[str]:
    """The names that are switched on.

    Args:
        value: True for all, as official weights want them; False for none; or names.
        known: the names that the module has.
        what: config key for the error, e.g. 'model.pts_bbox_head'.

    Raises:
        ValueError: naming the quirks that the module does not have.
    """
    if isinstance(value, bool):
        return frozenset(known if value else ())
    names = [value] if isinstance(value, str) else list(value)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f'{what}.published_quirks has {unknown}, which are not among {sorted(known)}; True is all of them, '
                         'False none')
    return frozenset(names)
