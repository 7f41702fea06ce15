"""Stage data: how MMEngine reads `.pkl` and `.yaml` files. In: an open file. Out: its content; nothing in it is run. No frame.

Importing this file replaces MMEngine's own handler, so that what the libraries' classes load (mmengine's BaseDataset, mmdet3d's
DataBaseSampler and NuScenesMetric, its other data sets) goes through the safe reader too.
"""

from __future__ import annotations

from typing import IO, Any

import yaml
from mmengine.fileio import PickleHandler, YamlHandler, register_handler

from projects.common.safe_pickle import read_pickle

# libyaml's is ten times faster, and MMEngine reads 30 files for every config that names one of another package's as base.
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


@register_handler(['pkl', 'pickle'])
class SafePickleHandler(PickleHandler):
    """MMEngine's PickleHandler that reads plain data only; it writes as before."""

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        """The content of an open file.

        Raises:
            UnsafeFileError, DamagedFileError: naming the file, where the caller opened it by name.
            TypeError: for options of the pickle module: the safe reader has none.
        """
        if kwargs:
            raise TypeError(f'pickles are read without options, got {", ".join(kwargs)}')
        return read_pickle(file, getattr(file, 'name', 'a pickle that mmengine.load was given'))


@register_handler(['yaml', 'yml'])
class SafeYamlHandler(YamlHandler):
    """MMEngine's YamlHandler without YAML's tags that build objects; it writes as before."""

    def load_from_fileobj(self, file: IO, **kwargs: Any) -> Any:
        """The content of an open file; yaml.YAMLError for a tag that is none of YAML's own."""
        return yaml.load(file, **{**kwargs, 'Loader': _LOADER})
