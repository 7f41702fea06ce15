"""What every tool does first."""

import sys

import pytest

from projects.common.threads import LeftOut, wait_passively


def test_transformers_is_left_out_of_what_detectors_import_and_of_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    wait_passively()
    wait_passively()
    assert sum(isinstance(finder, LeftOut) for finder in sys.meta_path) == 1
    ask = 'finder.find_spec(name, None)'
    for importer in ('mmengine.optim.optimizer.builder', 'mmdet.models.language_models.bert'):
        with pytest.raises(ModuleNotFoundError, match='left out'):
            exec(ask, dict(__name__=importer, finder=LeftOut(), name='transformers'))
        exec(ask, dict(__name__=importer, finder=LeftOut(), name='torchvision'))
    exec(ask, dict(__name__='projects.spatial_mllm.model.spatial_qwen', finder=LeftOut(), name='transformers'))
