"""Stage data: which scenes train, which are scored. In: nuScenes' tables, a file of splits. Out: tokens of scenes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from .errors import DataError

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

SPLITS = ('train', 'val', 'test')
Splits = Mapping[str, Sequence[str]]
_FORM = 'it must be {"train": [names of scenes], "val": [names of scenes]}'
_GIVE = 'say which scenes train and which are scored with --splits FILE (JSON: {"train": [names], "val": [names]})'


def names_of(names: Sequence[str], limit: int = 5) -> str:
    """At most `limit` of these names, and how many more there are."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def read_splits(path: str | Path) -> dict[str, list[str]]:
    """`{'train': scene names, 'val': ..., 'test': ...}`, as far as the file has them.

    Args:
        path: JSON, `{split: [scene names]}`. A devkit's `splits.json` with other names serves where one name alone ends in
            `train`, one alone in `val`, one alone in `test`.

    Raises:
        DataError: naming the file, for one that cannot be read or has another form, a split that is empty or has a scene
            twice, and a scene in two splits.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f'--splits {path}: cannot be read ({error.strerror})') from error
    except ValueError as error:
        raise DataError(f'--splits {path}: is not JSON ({error}); {_FORM}') from error
    if not isinstance(content, dict) or not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()):
        raise DataError(f'--splits {path}: has another form; {_FORM}')
    chosen = {split: _key_of(content, split, path) for split in SPLITS}
    splits = {split: content[key] for split, key in chosen.items() if key is not None}
    if not splits:
        raise DataError(f'--splits {path}: has no train, val or test (it has {names_of(list(content)) or "nothing"}); {_FORM}')
    ignored = [key for key in content if key not in chosen.values()]
    if ignored:
        print_log(f'--splits {path}: {names_of(ignored)} not used; train, val and test are', 'current', level=30)
    _check(splits, path)
    return splits


def _key_of(content: Mapping[str, object], split: str, path: str | Path) -> str | None:
    if split in content:
        return split
    similar = [key for key in content if key.endswith(split)]
    if len(similar) > 1:
        raise DataError(f'--splits {path}: {" and ".join(similar)} could both be {split}: name one of them {split!r}')
    return similar[0] if similar else None


def _check(splits: Splits, path: str | Path) -> None:
    owner: dict[str, str] = {}
    for split, names in splits.items():
        if not names:
            raise DataError(f'--splits {path}: the split {split} is empty: give it scenes, or leave it out')
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f'--splits {path}: {names_of(twice)} twice in the split {split}')
        shared = [name for name in names if name in owner]
        if shared:
            raise DataError(f'--splits {path}: {names_of(shared)} in both {owner[shared[0]]} and {split}: a scene that trains '
                            'must not be scored')
        owner.update(dict.fromkeys(names, split))


def scenes_by_split(nusc: NuScenes, splits: Splits | None) -> dict[str, set[str]]:
    """`{split: tokens of scenes}`, by the given splits or else by nuScenes' own.

    Without splits, scenes of none of nuScenes' own count as val, as in mmdet3d, and are named; they are left out of test.

    Raises:
        DataError: naming scenes that the tables do not have, and where nuScenes' own splits know no scene, or leave one
            split empty because they do not know some.
    """
    token_of = {scene['name']: scene['token'] for scene in nusc.scene}
    if not token_of:
        raise DataError(f'{nusc.dataroot}/{nusc.version}/scene.json has no scenes')
    if splits is None:
        return _official(nusc, token_of)
    for split, names in splits.items():
        unknown = [name for name in names if name not in token_of]
        if unknown:
            raise DataError(f'--splits: the split {split} has {names_of(unknown)}, which are none of the {len(token_of)} '
                            f'scenes of {nusc.dataroot}/{nusc.version} ({names_of(list(token_of))})')
    used = {name for names in splits.values() for name in names}
    left = [name for name in token_of if name not in used]
    if left:
        print_log(f'--splits: {len(left)} of {len(token_of)} scenes are in no split and are left out: {names_of(left)}',
                  'current', level=30)
    return {split: {token_of[name] for name in names} for split, names in splits.items()}


def _official(nusc: NuScenes, token_of: Mapping[str, str]) -> dict[str, set[str]]:
    from nuscenes.utils import splits as official
    train, val = {'v1.0-mini': (official.mini_train, official.mini_val), 'v1.0-trainval': (official.train, official.val),
                  'v1.0-test': (official.test, ())}[nusc.version]
    first = {token for name, token in token_of.items() if name in train}
    unknown = [name for name in token_of if name not in train and name not in val]
    where = f'nuScenes\' own splits of {nusc.version}'
    if len(unknown) == len(token_of):
        raise DataError(f'none of the {len(token_of)} scenes of {nusc.dataroot}/{nusc.version} ({names_of(unknown)}) is in '
                        f'{where}: {_GIVE}')
    if nusc.version == 'v1.0-test':
        groups = {'test': first}
    else:
        groups = {'train': first, 'val': set(token_of.values()) - first}
    for split, group in groups.items():
        if not group and unknown:
            raise DataError(f'no scene of {nusc.dataroot}/{nusc.version} is in the {split} split, and {names_of(unknown)} are '
                            f'in none of {where}: {_GIVE}')
        if not group:
            print_log(f'{nusc.dataroot}: no scene of {nusc.version} is in the {split} split, its info file will be empty',
                      'current', level=30)
    if unknown:
        state = 'left out' if nusc.version == 'v1.0-test' else 'counted as val, as in mmdet3d'
        print_log(f'{len(unknown)} of {len(token_of)} scenes are in none of {where} and are {state}: {names_of(unknown)}; '
                  'to choose, give --splits FILE', 'current', level=30)
    return groups
